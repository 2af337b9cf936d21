{{- /* The operator finds its lease, Service and webhook by this name, so it is no release's. */ -}}
{{- define "taskplatform.metadata" -}}
name: taskplatform-operator
labels: {{- include "taskplatform.labels" . | nindent 2 }}
{{- end }}

{{- define "taskplatform.labels" -}}
app.kubernetes.io/name: taskplatform-operator
app.kubernetes.io/part-of: taskplatform
{{- end }}
