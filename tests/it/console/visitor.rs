//! Somebody who uses the console: a cookie, and the word that stands in their forms.

use std::net::SocketAddr;

use serde_json::json;

use crate::harness::client::{Answer, Ask};
use crate::harness::gate::Gate;

const PASSPHRASE: &str = "correct horse battery staple";

pub(super) struct Visitor {
    admin: SocketAddr,
    cookie: String,
    csrf: String,
}

impl Visitor {
    /// Nobody is signed in.
    pub(super) fn nobody(gate: &Gate) -> Self {
        Self { admin: gate.admin, cookie: String::new(), csrf: String::new() }
    }

    /// Whoever holds the gate's secret token.
    pub(super) async fn with_token(gate: &Gate) -> Self {
        Self::enter(gate, "/console/sign-in", &[("token", &gate.secret())]).await
    }

    /// A new member, who has taken up the invitation.
    pub(super) async fn join(gate: &Gate, name: &str, role: &str) -> Self {
        let invited = gate.admin("POST", "/v1/members", Some(json!({"name": name, "role": role}))).await;
        assert_eq!(invited.status, 201, "{}", invited.text());
        Self::follow(gate, invited.json()["invitation"]["path"].as_str().expect("a path")).await
    }

    /// Whoever opens an invitation's link and sets a passphrase.
    pub(super) async fn follow(gate: &Gate, path: &str) -> Self {
        Self::enter(gate, path, &[("passphrase", PASSPHRASE), ("again", PASSPHRASE)]).await
    }

    async fn enter(gate: &Gate, path: &str, fields: &[(&str, &str)]) -> Self {
        let mut visitor = Self::nobody(gate);
        let answer = visitor.post(path, fields).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookies = answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        let mut sessions = cookies.filter_map(|(_, cookie)| cookie.strip_prefix("tollgate_session="));
        let value = sessions.next().and_then(|cookie| cookie.split(';').next()).expect("a session");
        visitor.cookie = format!("tollgate_session={value}");
        let page = visitor.get("/console/explain").await.text();
        visitor.csrf = field(&page, "csrf");
        visitor
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Ask::get(path)).await
    }

    /// Posts fields as they are.
    pub(super) async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.send(form(path, fields)).await
    }

    /// Posts a form as it stands in a page of theirs.
    pub(super) async fn post_form(&self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", self.csrf.as_str())]).collect();
        self.post(path, &fields).await
    }

    /// Posts the same, from another site's page.
    pub(super) async fn post_from(&self, path: &str, fields: &[(&str, &str)], origin: &str) -> Answer {
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", self.csrf.as_str())]).collect();
        self.send(form(path, &fields).header("Origin", origin)).await
    }

    /// Posts a form, and gets the page it leads to, with what that says first.
    pub(super) async fn post_and_follow(&self, path: &str, fields: &[(&str, &str)]) -> String {
        let answer = self.post_form(path, fields).await;
        assert_eq!(answer.status, 303, "{}", answer.text());
        let notice =
            answer.header("set-cookie").and_then(|cookie| cookie.split(';').next()).expect("a notice");
        let to = answer.header("location").expect("a page").split('#').next().unwrap();
        let ask = Ask::get(to).header("Cookie", &format!("{}; {notice}", self.cookie));
        let page = ask.send(self.admin).await;
        assert_eq!(page.status, 200, "{}", page.text());
        page.text()
    }

    async fn send(&self, ask: Ask) -> Answer {
        let ask = if self.cookie.is_empty() { ask } else { ask.header("Cookie", &self.cookie) };
        ask.send(self.admin).await
    }
}

fn form(path: &str, fields: &[(&str, &str)]) -> Ask {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
    Ask::new("POST", path).header("Content-Type", "application/x-www-form-urlencoded").body(body)
}

/// What a field of this name holds in a page.
pub(super) fn field(page: &str, name: &str) -> String {
    let rest =
        page.split_once(&format!("name=\"{name}\"")).unwrap_or_else(|| panic!("no {name} in {page}")).1;
    let value = rest.split_once("value=\"").expect("a value").1;
    value.split_once('"').expect("its end").0.to_owned()
}

/// Where a link of this name leads in a page.
pub(super) fn link(page: &str, name: &str) -> Option<String> {
    let before = page.split_once(&format!(">{name}</a>"))?.0;
    let rest = before.rsplit_once("href=\"")?.1;
    Some(rest.split_once('"')?.0.replace("&#38;", "&").replace("&amp;", "&"))
}
