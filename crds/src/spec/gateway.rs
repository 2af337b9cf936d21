//! The gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Resources, rules};
use crate::{Count, Duration, Network, Rate};

pub(crate) const PATH_PATTERN: &str = "^/[-._~/A-Za-z0-9]*$";

/// The nginx gateway.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!self.proxyProtocol || size(self.trustedProxies) > 0", "proxyProtocol needs trustedProxies: list the networks of the load balancer, or anybody could claim any address"),
])))]
pub struct Gateway {
    /// What the gateway is made of.
    #[serde(rename = "type")]
    pub kind: GatewayType,
    /// How many gateway pods run.
    pub replicas: Count<1, 100>,
    /// How the gateway is reached from outside the cluster.
    pub service: GatewayService,
    /// The networks of what stands in front of the gateway, such as a load balancer that ends TLS: it is believed where a request comes from
    /// (X-Forwarded-For), and whether it came by HTTPS (X-Forwarded-Proto). Nobody else is.
    #[schemars(length(max = 64))]
    pub trusted_proxies: Vec<Network>,
    /// Whether what stands in front begins each connection with the PROXY protocol, which tells the client's address in place of X-Forwarded-For;
    /// what was for port 443 came by HTTPS.
    pub proxy_protocol: bool,
    /// How many requests a client address may send (plan 3.3); what exceeds a limit is answered with 429.
    pub rate_limits: RateLimits,
    /// When an instance of the API gets requests (plan 3.1).
    pub health_check: HealthCheck,
    /// What each gateway pod gets.
    pub resources: Resources,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            kind: GatewayType::Nginx,
            replicas: Count::clamped(2),
            service: GatewayService::default(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            rate_limits: RateLimits::default(),
            health_check: HealthCheck::default(),
            resources: Resources::new(1000, 256),
        }
    }
}

/// What the gateway is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GatewayType {
    /// nginx pods that the operator runs.
    #[default]
    Nginx,
}

/// The Service in front of the gateway's pods.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("!has(self.nodePort) || self.type != 'ClusterIP'", "nodePort needs a Service of type NodePort or LoadBalancer: set type, or leave nodePort out"),
])))]
pub struct GatewayService {
    /// The type of the Service.
    #[serde(rename = "type")]
    pub kind: ServiceType,
    /// The port on every node. Left out, the cluster chooses one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node_port: Option<Count<1, 65535>>,
}

/// The type of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// The cloud's load balancer; the client's address is kept.
    #[default]
    LoadBalancer,
    /// A port on every node.
    NodePort,
    /// Inside the cluster only.
    ClusterIP,
}

/// Requests that one client address may send (plan 3.3).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimits {
    /// Of whatever is neither authentication nor the API.
    pub global: Rate,
    /// Of authentication: /api/auth/.
    pub auth: RateLimit,
    /// Of the API: /api/.
    pub api: RateLimit,
}

impl Default for RateLimits {
    fn default() -> Self {
        Self {
            global: Rate::PerSecond(100),
            auth: RateLimit { rate: Rate::PerMinute(5), burst: Count::clamped(10) },
            api: RateLimit { rate: Rate::PerSecond(1000), burst: Count::clamped(2000) },
        }
    }
}

/// A rate, and how far it may be exceeded for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// Requests a second (1000r/s) or a minute (5r/m).
    pub rate: Rate,
    /// Requests that may come at once above the rate; they are served without delay.
    pub burst: Count<0, 1_000_000>,
}

/// When an instance of the API gets requests (plan 3.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules(&[
    ("duration(self.interval) >= duration('1s') && duration(self.timeout) >= duration('1s')", "interval and timeout are at least 1s"),
    ("duration(self.timeout) <= duration(self.interval)", "timeout must not be above interval: lower the one or raise the other"),
])))]
pub struct HealthCheck {
    /// The path that is asked for.
    #[schemars(length(max = 256), regex(pattern = PATH_PATTERN))]
    pub path: String,
    /// The time between two checks.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Checks in a row that must succeed before an instance gets requests.
    pub healthy_threshold: Count<1, 100>,
    /// Checks in a row that must fail before an instance gets no more requests.
    pub unhealthy_threshold: Count<1, 100>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: "/api/health".to_owned(),
            interval: Duration::seconds(30),
            timeout: Duration::seconds(10),
            healthy_threshold: Count::clamped(2),
            unhealthy_threshold: Count::clamped(3),
        }
    }
}
