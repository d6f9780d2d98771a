//! Request smuggling: raw bytes through the real gate to an upstream that reads strictly. The gate and the upstream must
//! agree on how many requests there were, and nothing may arrive that was not judged.
//!
//! The rows are in `smuggling_heads` (request line and header lines) and `smuggling_bodies` (framing). Each says its
//! outcome. In a row `{P}` stands for the beginning of a POST (request line with a token, Host), `{G}` for one of a GET,
//! `{S}` for a whole GET of `/v1/free/smuggled` with the token, `{T}` for the token in a query (with
//! the row's number, by which its requests are known at the upstream), `{B}` for the token and
//! `{N}` for the row elsewhere.

use std::collections::HashSet;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::recorder::{Heard, Recorder};
use super::{smuggling_bodies, smuggling_heads};
use crate::harness::gate::{Gate, Plan, Token};
use crate::harness::upstream::Upstream;
use crate::harness::wait_for;

/// What becomes of a row.
#[derive(Clone, Copy, Debug)]
pub(super) enum Outcome {
    /// Answered with this status, and no byte of it reached the upstream.
    Refused(u16),
    /// One request in clean form, with this body.
    Passed(&'static [u8]),
    /// As `Passed`, at this target.
    At(&'static str),
    /// Its head may have gone out before its body was seen to be none; it never became a whole request.
    CutOff,
}

/// Name, bytes, outcome.
pub(super) type Row = (&'static str, &'static [u8], Outcome);

pub(super) const PROBE: &str = "/v1/free/probe";

pub(super) struct Scene {
    pub(super) gate: Gate,
    recorder: Recorder,
    pub(super) token: Token,
}

/// Puts in what the names in a row stand for.
pub(super) fn fill_in(row: &[u8], token: &str, number: usize) -> Vec<u8> {
    let in_query = format!("{token}&row={number}");
    let line = |method: &str, path: &str| {
        format!("{method} {path}?token={in_query} HTTP/1.1\r\nHost: gate.test\r\n")
    };
    let names = [
        (&b"{P}"[..], line("POST", "/v1/data/MY/CARS/x")),
        (b"{G}", line("GET", "/v1/free/x")),
        (b"{S}", line("GET", "/v1/free/smuggled") + "\r\n"),
        (b"{T}", in_query.clone()),
        (b"{B}", token.to_owned()),
        (b"{N}", format!("row={number}")),
    ];
    let mut filled = Vec::new();
    let mut rest = row;
    while let Some((first, after)) = rest.split_first() {
        if let Some((name, value)) = names.iter().find(|(name, _)| rest.starts_with(name)) {
            filled.extend_from_slice(value.as_bytes());
            rest = &rest[name.len()..];
        } else {
            filled.push(*first);
            rest = after;
        }
    }
    filled
}

/// A target without the mark of its row.
pub(super) fn unmarked(heard: &Heard, mark: &str) -> String {
    heard.target.replace(&format!("?{mark}&"), "?").replace(&format!("?{mark}"), "")
}

impl Scene {
    /// A gate before a strict upstream; `listener`: more keys of its listener.
    pub(super) async fn start(listener: &str) -> Self {
        let recorder = Recorder::start().await;
        let unused = Upstream::start().await;
        let mut plan = Plan::new(&unused).servers(&[recorder.address()]);
        if !listener.is_empty() {
            plan = plan.listener_extra(listener);
        }
        let mut gate = plan.start().await;
        let grant = json!({"datasets": [{"dataset": "MY/CARS", "operations": ["read", "write"]}]});
        let token = gate.token(grant).await;
        Self { gate, recorder, token }
    }

    fn fill_in(&self, row: &[u8], number: usize) -> Vec<u8> {
        fill_in(row, &self.token.value, number)
    }

    /// What the upstream heard of a row, and how many of the plain requests behind it.
    pub(super) fn heard_of(&self, number: usize) -> (Vec<Heard>, usize) {
        let mark = format!("row={number}");
        let is_of_row = |heard: &Heard| heard.target.split(['?', '&']).any(|part| part == mark);
        let heard = self.recorder.heard().into_iter().filter(is_of_row);
        let (probes, row): (Vec<Heard>, Vec<Heard>) =
            heard.partition(|heard| unmarked(heard, &mark) == PROBE);
        (row, probes.len())
    }

    /// What holds for all that reached the upstream.
    pub(super) async fn look_back(&self) {
        let reached = self.recorder.heard();
        let dirty: Vec<&Heard> = reached.iter().filter(|heard| heard.dirt.is_some()).collect();
        assert!(dirty.is_empty(), "{dirty:#?}");
        let id = Some(self.token.id.as_str());
        assert!(
            reached.iter().all(|heard| heard.header("x-tollgate-token-id") == id),
            "not judged: {reached:#?}"
        );
        assert!(reached.iter().all(|heard| heard.target.contains("row=")), "of no row: {reached:#?}");
        assert!(reached.iter().all(|heard| !heard.target.contains("smuggled")), "{reached:#?}");
        // Each request that reached the upstream is one that the gate says it let through, once.
        let ids: Vec<&str> = reached.iter().filter_map(|heard| heard.header("x-request-id")).collect();
        let distinct: HashSet<&str> = ids.iter().copied().collect();
        assert_eq!(distinct.len(), ids.len(), "one pass, two requests");
        let (gate, distinct) = (&self.gate, &distinct);
        wait_for("each to be in the log as passed", || async move {
            let log = gate.access_log();
            let passed: HashSet<&str> = log
                .iter()
                .filter(|line| line["verdict"] == "pass")
                .filter_map(|line| line["request_id"].as_str())
                .collect();
            distinct.iter().all(|id| passed.contains(id))
        })
        .await;
    }

    /// Sends bytes, waits for an answer, then sends one plain request more on the same connection: what the gate
    /// believes to be still going on swallows that one. All statuses that came back, until the gate closed.
    async fn play(&self, bytes: &[u8], number: usize) -> Vec<u16> {
        let mut stream = TcpStream::connect(self.gate.address).await.expect("a connection");
        let _ = stream.write_all(bytes).await;
        let mut answers = Vec::new();
        let token = &self.token.value;
        let probe = format!(
            "GET {PROBE}?token={token}&row={number} HTTP/1.1\r\nHost: gate.test\r\nConnection: close\r\n\r\n"
        );
        let reading = async {
            // Interim answers are not the answer: what comes before that is what a client must not send.
            let answered = |answers: &[u8]| statuses(answers).iter().any(|status| *status >= 200);
            while !answered(&answers) && stream.read_buf(&mut answers).await.is_ok_and(|read| read > 0) {}
            let _ = stream.write_all(probe.as_bytes()).await;
            while stream.read_buf(&mut answers).await.is_ok_and(|read| read > 0) {}
        };
        tokio::time::timeout(Duration::from_secs(30), reading).await.expect("the gate answers or closes");
        statuses(&answers)
    }

    /// What is wrong with how a row went, if anything is.
    async fn try_row(&self, number: usize, (_, bytes, outcome): &Row) -> Result<(), String> {
        let statuses = self.play(&self.fill_in(bytes, number), number).await;
        let statuses: Vec<u16> = statuses.into_iter().filter(|status| *status >= 200).collect();
        let (row, probes) = self.heard_of(number);
        let told = format!("statuses {statuses:?}, upstream {row:#?}");
        let target = |heard: &Heard| unmarked(heard, &format!("row={number}"));
        let passed = |right: &dyn Fn(&Heard) -> bool| {
            statuses.first() == Some(&200) && matches!(&row[..], [only] if only.complete && right(only))
        };
        let right = match *outcome {
            Outcome::Refused(status) => row.is_empty() && statuses.first() == Some(&status),
            Outcome::Passed(body) => passed(&|heard| target(heard).ends_with("/x") && heard.body == body),
            Outcome::At(at) => passed(&|heard| target(heard) == at),
            Outcome::CutOff => row.iter().all(|heard| !heard.complete) && !statuses.contains(&200),
        };
        // As many answers as requests that the upstream heard, and one for a refusal.
        let passes = statuses.iter().filter(|status| **status == 200).count();
        let agreed = passes == probes + row.iter().filter(|heard| heard.complete).count();
        let once = probes <= 1 && statuses.len() <= 2;
        if right && agreed && once { Ok(()) } else { Err(told) }
    }
}

fn statuses(answers: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answers);
    let after = text.split("HTTP/1.1 ").skip(1);
    after.map(|rest| rest.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0)).collect()
}

async fn play_all(rows: &[Row]) {
    let scene = Scene::start("").await;
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        if let Err(why) = scene.try_row(number, row).await {
            wrong.push(format!("{} ({:?}): {why}", row.0, row.2));
        }
    }
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), rows.len(), wrong.join("\n"));
    scene.look_back().await;
}

#[tokio::test]
async fn a_body_is_framed_in_one_way_or_refused() {
    play_all(smuggling_bodies::ROWS).await;
}

#[tokio::test]
async fn a_head_is_read_in_one_way_or_refused() {
    play_all(smuggling_heads::ROWS).await;
}

/// An upstream that answers before it has the body still has a claim on the next bytes of its connection.
#[tokio::test]
async fn a_connection_on_which_a_body_is_owed_carries_no_other_request() {
    let scene = Scene::start("").await;
    let token = &scene.token.value;
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut stream = TcpStream::connect(scene.gate.address).await.expect("a connection");
        let head = format!(
            "POST /v1/data/MY/CARS/early?token={token} HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n{expect}\r\nonly a part"
        );
        stream.write_all(head.as_bytes()).await.expect("to send");
        let mut answer = Vec::new();
        while statuses(&answer).is_empty() {
            assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0);
        }
        assert_eq!(statuses(&answer), [200]);
        drop(stream);
        for _ in 0..3 {
            let answers = scene.play(&scene.fill_in(b"{G}\r\n", 0), 0).await;
            assert_eq!(answers, [200, 200], "the next request");
        }
    }
    let heard = scene.recorder.heard();
    assert!(heard.iter().all(|heard| heard.dirt.is_none()), "{heard:#?}");
    assert!(heard.iter().filter(|heard| heard.target.contains("early")).all(|heard| !heard.complete));
}

#[tokio::test]
async fn a_websocket_is_a_tunnel_only_once_the_upstream_says_so() {
    let scene = Scene::start("").await;
    let upgrade = |version: &str| {
        format!(
            "GET /v1/free/ws?token={} HTTP/1.1\r\nHost: gate.test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: {version}\r\n\r\n",
            scene.token.value
        )
    };
    // Refused by the upstream: what follows is a request to the gate, or nothing.
    let hidden = scene.fill_in(&[upgrade("12").as_bytes(), b"{S}"].concat(), 0);
    assert_eq!(scene.play(&hidden, 0).await.first(), Some(&426));
    let heard = scene.recorder.heard();
    assert!(
        heard.iter().all(|heard| heard.tunnel.is_empty() && !heard.target.contains("smuggled")),
        "{heard:#?}"
    );

    // Granted: what follows is the tunnel's, also if it looks like a request, and no pool gets the connection.
    let mut stream = TcpStream::connect(scene.gate.address).await.expect("a connection");
    stream.write_all(upgrade("13").as_bytes()).await.expect("to send");
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        assert!(stream.read_buf(&mut answer).await.expect("an answer") > 0);
    }
    assert_eq!(statuses(&answer), [101]);
    let frames = scene.fill_in(b"{S}", 0);
    stream.write_all(&frames).await.expect("to send");
    let mut back = Vec::new();
    while back.len() < frames.len() {
        assert!(stream.read_buf(&mut back).await.expect("an echo") > 0);
    }
    assert_eq!(back, frames);
    drop(stream);
    assert_eq!(scene.play(&scene.fill_in(b"{G}\r\n", 0), 0).await, [200, 200]);
    let heard = scene.recorder.heard();
    assert!(
        heard.iter().all(|heard| heard.dirt.is_none() && !heard.target.contains("smuggled")),
        "{heard:#?}"
    );
    assert_eq!(heard.iter().filter(|heard| heard.tunnel == frames).count(), 1);
}
