//! The admin API, as far as a run needs it: making tokens and editing them.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use serde_json::{Value, json};
use ureq::Agent;

/// The secret token that every Tollgate of a run is started with. It opens nothing but these.
pub(crate) const SECRET: &str = "sk_bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";

/// A client of one node's admin API.
pub(crate) struct Admin {
    address: SocketAddr,
    agent: Agent,
}

/// A token of the run.
pub(crate) struct Made {
    pub(crate) id: String,
    pub(crate) token: String,
}

impl Admin {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let config = Agent::config_builder().http_status_as_error(false).build();
        Self { address, agent: config.into() }
    }

    /// Whether the node says that it is ready.
    pub(crate) fn is_ready(&self) -> bool {
        let answer = self.agent.get(format!("http://{}/readyz", self.address)).call();
        answer.is_ok_and(|answer| answer.status() == 200)
    }

    /// Makes a token that uses every kind of check: domains, a grant, a limit for the month, a rate nobody reaches.
    pub(crate) fn make_token(&self) -> anyhow::Result<Made> {
        let body = json!({
            "type": "publishable",
            "nickname": "bench",
            "allowed_domains": ["www.example.com"],
            "datasets": [{"dataset": "MY/CARS", "operations": ["read"]}],
            "credit_limit": {"core": {"credits": 1_000_000_000_000_u64, "period": "month"}, "premium": null},
            "rate_limit": {"requests_per_second": 1_000_000, "burst": 1_000_000},
        });
        let made = Self::send(self.agent.post(self.url("")), &body)?;
        let text = |name: &str| made.get(name).and_then(Value::as_str).map(str::to_owned);
        let id = text("id").with_context(|| format!("no id in {made}"))?;
        let token = text("token").with_context(|| format!("no token in {made}"))?;
        Ok(Made { id, token })
    }

    /// Edits a token.
    pub(crate) fn edit(&self, id: &str, change: &Value) -> anyhow::Result<()> {
        Self::send(self.agent.patch(self.url(&format!("/{id}"))), change).map(drop)
    }

    fn url(&self, rest: &str) -> String {
        format!("http://{}/v1/tokens{rest}", self.address)
    }

    fn send(request: ureq::RequestBuilder<ureq::typestate::WithBody>, body: &Value) -> anyhow::Result<Value> {
        let request = request.header("Authorization", format!("Bearer {SECRET}"));
        let mut answer = request.send_json(body)?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string()?;
        if !status.is_success() {
            bail!("the admin API answered {status}: {text}");
        }
        Ok(serde_json::from_str(&text)?)
    }
}
