//! **Nodes**: who is live, by which policies each acts, what each holds.

use std::fmt::Write as _;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::Deserialize;

use crate::console::Console;
use crate::console::layout::{Failure, Frame, page};
use crate::console::session::Visitor;
use crate::console::shape::Usage;
use crate::console::words::{self, counted, grouped};

#[derive(Deserialize)]
struct Nodes {
    epoch: u64,
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    #[serde(rename = "node")]
    id: String,
    name: String,
    epoch: u64,
    in_step: bool,
    live: bool,
    seen_at: String,
    leased: u64,
}

#[derive(Deserialize)]
struct Account {
    usage: Usage,
}

/// A row of the list.
struct Row {
    node: Node,
    heard: String,
    at: String,
    leased: String,
}

#[derive(Template)]
#[template(path = "nodes.html")]
struct NodesPage {
    frame: Frame,
    rows: Vec<Row>,
    epoch: u64,
    sentence: String,
    is_well: bool,
    /// Of each pool: its name, credits on lease, credits that are stranded.
    pools: [(&'static str, String, String); 2],
    stranded: u64,
    at: String,
}

/// `GET /console/nodes`
pub(crate) async fn show(visitor: Visitor, State(console): State<Console>) -> Result<Response, Failure> {
    let fail = |refusal| Failure::of(&visitor, refusal);
    let nodes: Nodes = console.api.get(&visitor.caller, "/v1/nodes").await.map_err(fail)?;
    let Account { usage } = console.api.get(&visitor.caller, "/v1/account").await.map_err(fail)?;
    let now = Timestamp::now();
    let (sentence, is_well) = tell(&nodes);
    let row = |node: Node| Row {
        heard: words::ago(&node.seen_at, now),
        at: words::moment(&node.seen_at),
        leased: grouped(node.leased),
        node,
    };
    let template = NodesPage {
        frame: visitor.frame("Nodes", "nodes"),
        epoch: nodes.epoch,
        rows: nodes.nodes.into_iter().map(row).collect(),
        sentence,
        is_well,
        pools: [
            ("Core", grouped(usage.core.leased), grouped(usage.core.stranded)),
            ("Premium", grouped(usage.premium.leased), grouped(usage.premium.stranded)),
        ],
        stranded: usage.core.stranded.saturating_add(usage.premium.stranded),
        at: now.strftime("%H:%M:%S").to_string(),
    };
    Ok(page(StatusCode::OK, &template))
}

/// What all that means, and whether it is good.
fn tell(nodes: &Nodes) -> (String, bool) {
    let all = nodes.nodes.len();
    let live: Vec<_> = nodes.nodes.iter().filter(|node| node.live).collect();
    let behind = live.iter().filter(|node| !node.in_step).count();
    let silent = all - live.len();
    if all == 0 {
        return ("No node has reported yet.".to_owned(), false);
    }
    let mut text = match (live.len(), behind) {
        (0, _) => String::new(),
        (1, 0) => "The node that is live acts by the newest policies.".to_owned(),
        (n, 0) => format!("All {n} nodes that are live act by the newest policies."),
        (n, behind) => {
            let act = if behind == 1 { "does" } else { "do" };
            format!(
                "{behind} of {} that are live {act} not act by the newest policies yet.",
                counted(n as u64, "node")
            )
        }
    };
    if silent > 0 {
        let (is, it) = if silent == 1 { ("is", "it") } else { ("are", "they") };
        let silent = counted(silent as u64, "node");
        let _ = write!(text, " {silent} {is} silent: gone, or cut off and serving by what {it} last knew.");
    }
    (text.trim_start().to_owned(), behind == 0 && silent == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_in_a_sentence_how_the_nodes_are() {
        // Of each node: live, in step.
        let table = [
            (vec![], "No node has reported yet.", false),
            (vec![(true, true)], "The node that is live acts by", true),
            (vec![(true, true), (true, true)], "All 2 nodes that are live act by", true),
            (vec![(true, true), (true, false)], "1 of 2 nodes that are live does not act", false),
            (vec![(true, true), (false, false)], "newest policies. 1 node is silent", false),
            (vec![(false, true), (false, true)], "2 nodes are silent", false),
        ];
        for (nodes, told, well) in table {
            let node = |(live, in_step): &(bool, bool)| Node {
                id: String::new(),
                name: String::new(),
                epoch: 1,
                in_step: *in_step,
                live: *live,
                seen_at: String::new(),
                leased: 0,
            };
            let (text, is_well) = tell(&Nodes { epoch: 1, nodes: nodes.iter().map(node).collect() });
            assert!(text.contains(told) && is_well == well, "{nodes:?}: {text}");
        }
    }
}
