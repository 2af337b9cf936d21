//! How parts are reached: each part declares its endpoints in its file, and which of the others' it calls.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use crate::{Component, Draft, Facts};

/// Where a part answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The part that answers.
    pub component: Component,
    /// The port's name, in Services and in pods.
    pub name: &'static str,
    /// The port.
    pub port: u16,
    /// What the Service's name has after the component's, such as `-primary`.
    pub service: &'static str,
    /// Who may call beside the parts that say so.
    pub open_to: &'static [Outsider],
    /// Who one is there.
    pub login: Option<Login>,
}

/// Somebody who is no part of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outsider {
    /// Anybody, from anywhere.
    Anybody,
    /// Every pod of the cluster: who scrapes metrics is not known beforehand.
    Cluster,
    /// The operator's pods.
    Operator,
}

/// Who one is at an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// The user.
    pub user: &'static str,
    /// The key of the password in the platform's credentials.
    pub password: &'static str,
    /// Whether another user, of this name with `_2`, has every second password: where a user can have one only.
    pub alternates: bool,
}

impl Endpoint {
    /// The Service of an endpoint.
    pub fn host(&self, platform: &Draft) -> String {
        format!("{}-{}{}", platform.name(), self.component, self.service)
    }

    /// The endpoint on a pod of this address.
    pub const fn at(&self, address: IpAddr) -> SocketAddr {
        SocketAddr::new(address, self.port)
    }

    /// The port as a container has it.
    pub(crate) fn container_port(&self) -> Value {
        json!({"name": self.name, "containerPort": self.port, "protocol": "TCP"})
    }

    /// The port as a Service has it.
    pub(crate) fn service_port(&self) -> Value {
        json!({"name": self.name, "port": self.port, "targetPort": self.name, "protocol": "TCP"})
    }

    /// A URL of it, with the password from a variable of the container.
    pub(crate) fn url(&self, platform: &Draft, facts: &Facts, scheme: &str, password_variable: &str) -> String {
        let user = self.login.map(|login| login.user_at(facts.version(login.password))).unwrap_or_default();
        format!("{scheme}://{user}:$({password_variable})@{}:{}", self.host(platform), self.port)
    }
}
