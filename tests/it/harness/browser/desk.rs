//! Somebody at the console: finds things as people do who hear a page read aloud, by role and name, and works with them as
//! with a mouse and a keyboard.

use std::time::{Duration, Instant};

use fantoccini::elements::Element;
use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, Locator};
use serde_json::{Value, json};
use url::{ParseError, Url};

use super::Browser;

/// How long something may take to appear.
const PATIENCE: Duration = Duration::from_secs(15);

/// A command of Chrome's developer tools, by way of chromedriver.
#[derive(Debug)]
struct DevTools(&'static str, Value);

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base_url: &Url, session_id: Option<&str>) -> Result<Url, ParseError> {
        base_url.join(&format!("session/{}/goog/cdp/execute", session_id.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (http::Method, Option<String>) {
        let body = json!({ "cmd": self.0, "params": self.1 });
        (http::Method::POST, Some(body.to_string()))
    }
}

/// A browser that looks at a console.
pub(crate) struct Desk<'b> {
    client: &'b Client,
    base: String,
}

impl<'b> Desk<'b> {
    /// At the console of a node with this admin address.
    pub(crate) fn at(browser: &'b Browser, admin: std::net::SocketAddr) -> Self {
        Self { client: &browser.client, base: format!("http://{admin}") }
    }

    async fn tools(&self, command: &'static str, parameters: Value) -> Value {
        let answer = self.client.issue_cmd(DevTools(command, parameters)).await;
        answer.unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    /// Opens a page of the console.
    pub(crate) async fn open(&self, path: &str) {
        let url = format!("{}{path}", self.base);
        self.client.goto(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
    }

    /// The path and query that are shown.
    pub(crate) async fn place(&self) -> String {
        let url = self.client.current_url().await.expect("an address");
        url.as_str().strip_prefix(&self.base).unwrap_or(url.as_str()).to_owned()
    }

    /// Everything that can be read on the page.
    pub(crate) async fn text(&self) -> String {
        let body = self.client.find(Locator::Css("body")).await.expect("a body");
        body.text().await.expect("a text")
    }

    /// Waits until the page says this.
    pub(crate) async fn reads(&self, text: &str) {
        let started = Instant::now();
        loop {
            let all = match self.client.find(Locator::Css("body")).await {
                Ok(body) => body.text().await.unwrap_or_default(),
                Err(_) => String::new(),
            };
            if all.contains(text) {
                return;
            }
            let place = self.place().await;
            assert!(started.elapsed() < PATIENCE, "no {text:?} at {place}:\n{all}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What there is with this role and name, as assistive technology is told.
    async fn nodes(&self, role: &str, name: &str) -> Vec<Value> {
        let document = self.tools("DOM.getDocument", json!({ "depth": 0 })).await;
        let root = document["root"]["nodeId"].clone();
        let query = json!({ "nodeId": root, "role": role, "accessibleName": name });
        let found = self.client.issue_cmd(DevTools("Accessibility.queryAXTree", query)).await;
        let nodes = found.ok().and_then(|found| found["nodes"].as_array().cloned()).unwrap_or_default();
        nodes.into_iter().filter(|node| node["ignored"] != json!(true)).collect()
    }

    /// The one thing with this role and name, once it is there.
    pub(crate) async fn find(&self, role: &str, name: &str) -> Element {
        let started = Instant::now();
        loop {
            let nodes = self.nodes(role, name).await;
            if let [node] = nodes.as_slice()
                && let Some(element) = self.element(&node["backendDOMNodeId"]).await
            {
                return element;
            }
            let place = self.place().await;
            let count = nodes.len();
            assert!(
                started.elapsed() < PATIENCE,
                "{count} × {role} {name:?} at {place}:\n{}",
                self.text().await
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// An element of the accessibility tree as one of the page; `None`: the page went away meanwhile.
    async fn element(&self, backend: &Value) -> Option<Element> {
        static MARKS: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let mark = MARKS.fetch_add(1, std::sync::atomic::Ordering::Relaxed).to_string();
        let resolve = DevTools("DOM.resolveNode", json!({ "backendNodeId": backend }));
        let object = self.client.issue_cmd(resolve).await.ok()?["object"]["objectId"].clone();
        let call = json!({
            "objectId": object, "functionDeclaration": "function(mark) { this.setAttribute('data-found', mark) }",
            "arguments": [{ "value": mark }],
        });
        self.client.issue_cmd(DevTools("Runtime.callFunctionOn", call)).await.ok()?;
        self.client.find(Locator::Css(&format!("[data-found='{mark}']"))).await.ok()
    }

    /// Clicks.
    pub(crate) async fn click(&self, role: &str, name: &str) {
        let element = self.find(role, name).await;
        element.click().await.unwrap_or_else(|error| panic!("{role} {name:?}: {error}"));
    }

    /// Types in the place of what stands there.
    pub(crate) async fn fill(&self, name: &str, text: &str) {
        let element = self.find("textbox", name).await;
        element.clear().await.unwrap_or_else(|error| panic!("{name:?}: {error}"));
        element.send_keys(text).await.unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }

    /// The same, where entries are suggested.
    pub(crate) async fn fill_combo(&self, name: &str, text: &str) {
        let element = self.find("combobox", name).await;
        element.send_keys(text).await.unwrap_or_else(|error| panic!("{name:?}: {error}"));
    }

    /// What stands in a field.
    pub(crate) async fn value(&self, name: &str) -> String {
        let element = self.find("textbox", name).await;
        element.prop("value").await.expect("a value").unwrap_or_default()
    }

    /// Types a password: it has no role, so it is found by its label.
    pub(crate) async fn fill_hidden(&self, field: &str, text: &str) {
        let locator = format!("input[name='{field}']");
        let element =
            self.client.find(Locator::Css(&locator)).await.unwrap_or_else(|error| panic!("{field}: {error}"));
        element.send_keys(text).await.expect("typed");
    }

    /// Chooses an entry of a list.
    pub(crate) async fn choose(&self, name: &str, entry: &str) {
        let element = self.find("combobox", name).await;
        element.select_by_label(entry).await.unwrap_or_else(|error| panic!("{name:?}: {entry:?}: {error}"));
    }

    /// Whether a button can be pressed.
    pub(crate) async fn is_enabled(&self, role: &str, name: &str) -> bool {
        self.find(role, name).await.is_enabled().await.expect("a state")
    }

    /// Waits until a button can be pressed, or cannot.
    pub(crate) async fn waits_enabled(&self, role: &str, name: &str, expected: bool) {
        let started = Instant::now();
        while self.is_enabled(role, name).await != expected {
            assert!(started.elapsed() < PATIENCE, "{role} {name:?} is not {expected}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Runs a script in the page.
    pub(crate) async fn run(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.unwrap_or_else(|error| panic!("{script:.80}: {error}"))
    }

    /// Runs a script in the page that ends by calling its last argument.
    pub(crate) async fn run_to_end(&self, script: &str) -> Value {
        self.client
            .execute_async(script, Vec::new())
            .await
            .unwrap_or_else(|error| panic!("{script:.80}: {error}"))
    }

    /// Shows pages as this scheme and this width.
    pub(crate) async fn look(&self, scheme: &str, width: u32) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.tools("Emulation.setEmulatedMedia", json!({ "features": features })).await;
        self.size(width, 900).await;
    }

    async fn size(&self, width: u32, height: u64) {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.tools("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// A picture of the whole page, as PNG.
    pub(crate) async fn picture(&self, width: u32) -> Vec<u8> {
        let height = self.run("return document.documentElement.scrollHeight", Vec::new()).await;
        self.size(width, height.as_u64().unwrap_or(900).clamp(400, 3000)).await;
        let picture = self.client.screenshot().await.expect("a picture");
        self.size(width, 900).await;
        picture
    }

    /// The cookie of the session.
    pub(crate) async fn cookie(&self) -> String {
        let cookie = self.client.get_named_cookie("tollgate_session").await.expect("a session");
        cookie.value().to_owned()
    }

    /// Signs in with a secret token.
    pub(crate) async fn sign_in(&self, secret: &str) {
        self.open("/console/sign-in").await;
        self.fill_hidden("token", secret).await;
        self.click("button", "Sign in with token").await;
        self.reads("API Tokens").await;
    }
}
