//! The pure function from a TaskPlatform to Kubernetes objects.
