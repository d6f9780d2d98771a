//! A real Chromium without a window, steered through chromedriver, and pages for it to show.
//!
//! Every name in the world is this machine to it, so pages live on names such as `http://www.example.com:PORT` and the
//! gate on `http://api.example.net:PORT`. What it sends and what it lets a page read is its own doing: nothing here
//! knows a rule of CORS.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fantoccini::wd::Capabilities;
use fantoccini::{Client, ClientBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use serde::Deserialize;
use serde_json::{Value, json};

use super::client::Answer;

pub(crate) mod desk;
mod pages;

pub(crate) use pages::Pages;

/// Where Debian's packages `chromium` and `chromium-driver` put them.
const CHROMIUM: &str = "/usr/bin/chromium";
const CHROMEDRIVER: &str = "/usr/bin/chromedriver";

const SWITCHES: &[&str] = &[
    "--headless",
    // Tests run in containers, and as root.
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    // Nothing may leave this machine, nor be asked of a proxy.
    "--host-resolver-rules=MAP * 127.0.0.1",
    "--no-proxy-server",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
];

/// Asks for something as a script in a page would, and tells what the script can see.
const FETCH: &str = r"
    const [url, options, done] = arguments;
    fetch(url, options).then(
        async (answer) => done({
            status: answer.status,
            headers: Object.fromEntries(answer.headers),
            body: await answer.text(),
        }),
        (error) => done({error: error.name}),
    );
";

/// A call of `fetch` in a page.
#[derive(Clone, Debug)]
pub(crate) struct Fetch {
    url: String,
    options: Value,
}

impl Fetch {
    pub(crate) fn get(url: &str) -> Self {
        Self { url: url.to_owned(), options: json!({}) }
    }

    pub(crate) fn method(self, method: &str) -> Self {
        self.option("method", method)
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.options["headers"][name] = json!(value);
        self
    }

    pub(crate) fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").option("body", &body.to_string())
    }

    /// Any other option of `fetch`, such as `mode` or `referrerPolicy`.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self.options[name] = json!(value);
        self
    }
}

/// The browser kept the answer from the page, if there was one; the error's name is all the page learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Withheld(pub(crate) String);

#[derive(Deserialize)]
#[serde(untagged)]
enum Outcome {
    Read { status: u16, headers: serde_json::Map<String, Value>, body: String },
    Failed { error: String },
}

/// A running Chromium and the server of its pages. Dropping it ends both processes.
pub(crate) struct Browser {
    client: Client,
    pages: Pages,
    _processes: Processes,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let pages = Pages::start().await;
        let (processes, port) = Processes::start_on_a_port().await;
        let connector = HttpConnector::new();
        let mut builder = ClientBuilder::new(connector);
        builder.capabilities(capabilities(processes.directory.path()));
        let driver = format!("http://127.0.0.1:{port}");
        let client =
            builder.connect(&driver).await.unwrap_or_else(|error| panic!("{error}: {}", processes.said()));
        Self { client, pages, _processes: processes }
    }

    /// The port all pages are served on.
    pub(crate) fn port(&self) -> u16 {
        self.pages.port()
    }

    /// Opens the page at this host and path; see [`Pages`] for what a query does.
    pub(crate) async fn visit(&self, host: &str, path: &str) {
        let url = format!("http://{host}:{}{path}", self.port());
        self.client.goto(&url).await.unwrap_or_else(|error| panic!("{url}: {error}"));
        let title = self.client.title().await.expect("a title");
        assert_eq!(title, "A page under test", "{url} shows something else");
    }

    /// Goes into the first frame of the page.
    pub(crate) async fn enter_frame(&self) {
        self.client.enter_frame(0).await.expect("a frame");
    }

    /// What `self.origin` is where scripts run now.
    pub(crate) async fn origin(&self) -> String {
        let origin = self.client.execute("return self.origin", Vec::new()).await.expect("an origin");
        origin.as_str().expect("a string").to_owned()
    }

    /// Fetches as a script of the page, and gives what the script can see.
    pub(crate) async fn fetch(&self, fetch: &Fetch) -> Result<Answer, Withheld> {
        let arguments = vec![json!(fetch.url), fetch.options.clone()];
        let told = self.client.execute_async(FETCH, arguments).await;
        let told = told.unwrap_or_else(|error| panic!("{}: {error}", fetch.url));
        match serde_json::from_value(told).expect("an outcome") {
            Outcome::Failed { error } => Err(Withheld(error)),
            Outcome::Read { status, headers, body } => {
                let text = |value: Value| value.as_str().unwrap_or_default().to_owned();
                let headers = headers.into_iter().map(|(name, value)| (name, text(value))).collect();
                Ok(Answer { status, headers, body: body.into_bytes() })
            }
        }
    }

    /// Has the page load an image from there, and waits until that came to an end.
    pub(crate) async fn load_image(&self, url: &str) {
        let script = "const [url, done] = arguments; const image = new Image(); \
                      image.onload = image.onerror = (event) => done(event.type); image.src = url;";
        self.client.execute_async(script, vec![json!(url)]).await.expect("an end");
    }
}

fn capabilities(directory: &Path) -> Capabilities {
    let mut switches: Vec<String> = SWITCHES.iter().map(|switch| (*switch).to_owned()).collect();
    switches.push(format!("--user-data-dir={}", directory.join("profile").display()));
    let options = json!({"binary": CHROMIUM, "args": switches});
    [("goog:chromeOptions".to_owned(), options)].into_iter().collect()
}

/// Chromedriver, and the Chromium that it started, in a directory of their own.
struct Processes {
    driver: Child,
    directory: tempfile::TempDir,
}

impl Processes {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = |name: &str| File::create(directory.path().join(name)).expect("a log");
        let mut command = Command::new(CHROMEDRIVER);
        command.arg("--port=0").stdin(Stdio::null()).stdout(file("driver.out")).stderr(file("driver.err"));
        // Crash reports, sockets and caches stay in the directory too.
        command.env("HOME", directory.path()).env("TMPDIR", directory.path());
        for name in ["XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DISPLAY", "WAYLAND_DISPLAY"] {
            command.env_remove(name);
        }
        let driver = command.spawn();
        let driver = driver.unwrap_or_else(|error| {
            panic!("{CHROMEDRIVER}: {error}; the browser tests need Debian's chromium and chromium-driver")
        });
        Self { driver, directory }
    }

    fn said(&self) -> String {
        let read = |name| fs::read_to_string(self.directory.path().join(name)).unwrap_or_default();
        read("driver.out") + &read("driver.err")
    }

    /// Chromedriver takes a free port for IPv6, and ends where somebody else has the same one for IPv4. Then it is tried again.
    async fn start_on_a_port() -> (Self, u16) {
        let mut said = String::new();
        for _ in 0..10 {
            let mut processes = Self::start();
            if let Some(port) = processes.wait_port().await {
                return (processes, port);
            }
            said = processes.said();
        }
        panic!("chromedriver ends at once: {said}");
    }

    /// `None`: it has ended.
    async fn wait_port(&mut self) -> Option<u16> {
        let started = Instant::now();
        loop {
            let ended = self.driver.try_wait().expect("chromedriver can be watched").is_some();
            let said = self.said();
            let line = said.lines().find_map(|line| line.split_once("started successfully on port "));
            if let Some(port) = line.and_then(|(_, rest)| rest.trim_end_matches('.').parse().ok()) {
                return Some(port);
            }
            if ended {
                return None;
            }
            assert!(started.elapsed() < Duration::from_secs(15), "chromedriver does not start: {said}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // Chromedriver leaves Chromium running when it is told to stop, and Chromium's parts write their caches when
        // it ends. So all of them are ended at once, each by its own number.
        let mut family = vec![self.driver.id()];
        let mut known = 0;
        while let Some(parent) = family.get(known) {
            family.extend(children(*parent));
            known += 1;
        }
        let numbers = family.iter().map(u32::to_string);
        let _ = Command::new("kill").arg("-KILL").args(numbers).stderr(Stdio::null()).status();
        let _ = self.driver.wait();
        within_seconds(3, || !family.iter().any(|process| is_running(*process)));
        within_seconds(3, || fs::remove_dir_all(self.directory.path()).is_ok());
    }
}

/// Asks again and again until the answer is yes; whether it came in time. Not a future: a `Drop` cannot wait for one.
fn within_seconds(seconds: u64, ask: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(seconds) {
        if ask() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// The processes that a process started, whichever of its threads did.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = threads.map(|thread| fs::read_to_string(thread.path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Whether a process still does something: one that waits only to be reaped does not.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}
