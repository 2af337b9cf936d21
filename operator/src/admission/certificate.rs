//! The webhook's certificate: made, kept in a Secret that all replicas serve from, renewed long before it ends, and told
//! to the API server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use k8s_openapi::{
    ByteString,
    api::{admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::{
    crypto::ring::sign::any_supported_type,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde_json::{Value, json};
use taskplatform_blueprint::MANAGED_BY;
use tracing::{info, warn};

use super::Serving;
use crate::describe;

/// The Service that the API server calls, the webhook's configuration, and the Secret.
const SERVICE: &str = "taskplatform-operator";
const CONFIGURATION: &str = "taskplatform-operator";
/// Whose webhooks are the operator's.
const DOMAIN: &str = ".taskplatform.dev";
const SECRET: &str = "taskplatform-operator-admission";

/// Keys of the Secret: what is served, and whom the API server is to trust, which is the former certificate as well, as
/// long as a replica may serve it.
const CHAIN: &str = "tls.crt";
const KEY: &str = "tls.key";
const TRUSTED: &str = "ca.crt";
const NOT_AFTER: &str = "taskplatform.dev/not-after";

/// How long a certificate is valid, and how long before its end it is renewed: a month of nobody looking does no harm.
const VALID: SignedDuration = SignedDuration::from_hours(365 * 24);
const RENEW: SignedDuration = SignedDuration::from_hours(90 * 24);
/// How often it is looked after.
const INTERVAL: Duration = Duration::from_mins(1);

/// There is no certificate to serve, or the API server does not know it.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("Secret {SECRET} cannot be {action}")]
    Secret { action: &'static str, source: Box<kube::Error> },
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    #[error("Secret {SECRET} has no certificate that can be served: delete it, and another is made within a minute")]
    Unusable,
    #[error("ValidatingWebhookConfiguration {CONFIGURATION} cannot be {action}")]
    Configuration { action: &'static str, source: Box<kube::Error> },
}

/// Looks after the certificate until the process ends. Without one, the API server goes on without the webhook.
pub(crate) async fn keep_current(client: Client, namespace: String, serving: Arc<Serving>) {
    let mut keeper = Keeper { client, namespace, serving, served: None };
    let mut failing = false;
    loop {
        match keeper.look_after().await {
            Ok(()) => failing = false,
            Err(error) => {
                // Said once: it is tried again every minute.
                if !failing {
                    warn!(error = describe(&error), "the admission webhook may not be asked");
                }
                failing = true;
            }
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

struct Keeper {
    client: Client,
    namespace: String,
    serving: Arc<Serving>,
    /// The chain that is served.
    served: Option<ByteString>,
}

impl Keeper {
    async fn look_after(&mut self) -> Result<(), Error> {
        let secret = self.current(Timestamp::now()).await?;
        let data = secret.data.unwrap_or_default();
        let (Some(chain), Some(key), Some(trusted)) = (data.get(CHAIN), data.get(KEY), data.get(TRUSTED)) else {
            return Err(Error::Unusable);
        };
        if self.served.as_ref() != Some(chain) {
            self.serving.replace(certified(&chain.0, &key.0).ok_or(Error::Unusable)?);
            self.served = Some(chain.clone());
            info!("serving the admission webhook's certificate");
        }
        self.tell(trusted).await
    }

    /// The Secret as it is, or as it is to be from now on. Of two replicas, the one that comes second takes the other's.
    async fn current(&self, now: Timestamp) -> Result<Secret, Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let failed = |action| move |source| Error::Secret { action, source: Box::new(source) };
        let Some(live) = api.get_opt(SECRET).await.map_err(failed("read"))? else {
            let secret = self.secret(now, None)?;
            let made = match api.create(&PostParams::default(), &secret).await {
                Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
                    api.get(SECRET).await
                }
                made => made,
            };
            return made.map_err(failed("created"));
        };
        if !is_due(&live, now) {
            return Ok(live);
        }
        let mut renewed = self.secret(now, live.data.as_ref().and_then(|data| data.get(CHAIN)))?;
        renewed.metadata.resource_version = live.resource_version();
        info!("renewing the admission webhook's certificate");
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        match api.patch(SECRET, &parameters, &Patch::Merge(&renewed)).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => api.get(SECRET).await.map_err(failed("read")),
            patched => patched.map_err(failed("renewed")),
        }
    }

    fn secret(&self, now: Timestamp, former: Option<&ByteString>) -> Result<Secret, Error> {
        let (chain, key) = make(&self.namespace, now)?;
        let mut trusted = chain.clone();
        if let Some(former) = former {
            trusted.push_str(&String::from_utf8_lossy(&former.0));
        }
        let data = [(CHAIN, chain), (KEY, key), (TRUSTED, trusted)];
        Ok(Secret {
            metadata: ObjectMeta {
                name: Some(SECRET.to_owned()),
                annotations: Some(BTreeMap::from([(NOT_AFTER.to_owned(), (now + VALID).to_string())])),
                labels: Some(BTreeMap::from([("app.kubernetes.io/managed-by".to_owned(), MANAGED_BY.to_owned())])),
                ..ObjectMeta::default()
            },
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).into()),
            ..Secret::default()
        })
    }

    /// Tells the API server whom to trust.
    async fn tell(&self, trusted: &ByteString) -> Result<(), Error> {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let failed = |action| move |source| Error::Configuration { action, source: Box::new(source) };
        // Whoever installed the operator without it does not want it.
        let Some(live) = api.get_opt(CONFIGURATION).await.map_err(failed("read"))? else { return Ok(()) };
        let untold = live.webhooks.into_iter().flatten().filter(|webhook| {
            webhook.name.ends_with(DOMAIN) && webhook.client_config.ca_bundle.as_ref() != Some(trusted)
        });
        let changes: Vec<Value> =
            untold.map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": trusted}})).collect();
        if changes.is_empty() {
            return Ok(());
        }
        let change = json!({"webhooks": changes});
        let parameters = PatchParams { field_manager: Some(MANAGED_BY.to_owned()), ..PatchParams::default() };
        api.patch(CONFIGURATION, &parameters, &Patch::Strategic(change)).await.map_err(failed("changed"))?;
        info!("the API server trusts the admission webhooks");
        Ok(())
    }
}

/// Whether a certificate is to be made anew.
fn is_due(secret: &Secret, now: Timestamp) -> bool {
    let not_after = secret.annotations().get(NOT_AFTER).and_then(|text| text.parse::<Timestamp>().ok());
    let usable = secret.data.as_ref().is_some_and(|data| {
        data.contains_key(TRUSTED)
            && data.get(CHAIN).zip(data.get(KEY)).is_some_and(|(chain, key)| certified(&chain.0, &key.0).is_some())
    });
    !usable || not_after.is_none_or(|not_after| not_after.duration_since(now) < RENEW)
}

/// A certificate that signs itself, for the Service, and its key.
fn make(namespace: &str, now: Timestamp) -> Result<(String, String), rcgen::Error> {
    let host = format!("{SERVICE}.{namespace}.svc");
    let mut parameters = CertificateParams::new(vec![host.clone(), format!("{host}.cluster.local")])?;
    parameters.distinguished_name.push(DnType::CommonName, host);
    let date = |time: Timestamp| {
        let date = time.to_zoned(TimeZone::UTC).date();
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    // Clocks differ; the day after is the end of the last day.
    parameters.not_before = date(now - SignedDuration::from_hours(24));
    parameters.not_after = date(now + VALID + SignedDuration::from_hours(24));
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

fn certified(chain: &[u8], key: &[u8]) -> Option<CertifiedKey> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().ok()?;
    let key = any_supported_type(&PrivateKeyDer::from_pem_slice(key).ok()?).ok()?;
    let certified = CertifiedKey::new(chain, key);
    certified.keys_match().ok()?;
    Some(certified)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keeper() -> (Secret, Timestamp) {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        let (chain, key) = make("taskplatform-system", now).unwrap();
        let data = [(CHAIN, chain.clone()), (KEY, key), (TRUSTED, chain)];
        let secret = Secret {
            metadata: ObjectMeta {
                annotations: Some(BTreeMap::from([(NOT_AFTER.to_owned(), (now + VALID).to_string())])),
                ..ObjectMeta::default()
            },
            data: Some(data.map(|(key, text)| (key.to_owned(), ByteString(text.into_bytes()))).into()),
            ..Secret::default()
        };
        (secret, now)
    }

    #[test]
    fn it_is_renewed_in_time_and_when_it_is_of_no_use() {
        let (secret, now) = keeper();
        assert!(!is_due(&secret, now));
        assert!(!is_due(&secret, now + VALID - RENEW));
        assert!(is_due(&secret, now + VALID - RENEW + SignedDuration::from_secs(1)));

        let mut other = secret.clone();
        let (_, key) = make("taskplatform-system", now).unwrap();
        other.data.as_mut().unwrap().insert(KEY.into(), ByteString(key.into_bytes()));
        assert!(is_due(&other, now), "a key of another certificate");

        let mut undated = secret;
        undated.metadata.annotations = None;
        assert!(is_due(&undated, now));
    }
}
