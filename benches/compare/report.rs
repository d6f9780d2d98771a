//! What comes out: tables for people on stdout and in `report.md`, everything in `report.json`.

use std::fmt::Write as _;
use std::fs;

use anyhow::Context;
use serde::Serialize;

use super::counted::Counted;
use super::figures::Spread;
use super::idle_streams::IdleStreams;
use super::matrix::{Matrix, Row};
use super::metering::Metering;
use super::outage::Outage;
use super::plan::Plan;
use super::propagation::Propagation;
use super::signed::Signed;
use super::subjects::Kind;
use super::tokens::{InUse, Tokens};

mod made;
mod metering;
mod signed;

use made::Made;

/// All figures of a run.
#[derive(Serialize)]
pub(crate) struct Report {
    made: Made,
    pub(crate) matrix: Option<Matrix>,
    pub(crate) tokens: Option<Tokens>,
    pub(crate) propagation: Option<Propagation>,
    pub(crate) signed: Option<Signed>,
    pub(crate) metering: Option<Metering>,
    pub(crate) streams: Option<IdleStreams>,
    pub(crate) outage: Option<Outage>,
    pub(crate) counted: Vec<Counted>,
    bars: Vec<Bar>,
}

/// One bar of the issue, and where this run is.
#[derive(Serialize)]
struct Bar {
    what: String,
    wanted: String,
    found: String,
    verdict: Verdict,
}

/// What a run says about a bar.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
enum Verdict {
    Met,
    Missed,
    /// The figure is there, but it is not the one that the bar is about.
    SaysNothing(&'static str),
}

impl Report {
    pub(crate) fn new(plan: &Plan) -> anyhow::Result<Self> {
        Ok(Self {
            made: Made::now(plan)?,
            matrix: None,
            tokens: None,
            propagation: None,
            signed: None,
            metering: None,
            streams: None,
            outage: None,
            counted: Vec::new(),
            bars: Vec::new(),
        })
    }

    /// Writes the files and prints the tables.
    pub(crate) fn finish(mut self, plan: &Plan) -> anyhow::Result<()> {
        self.bars = self.find_bars();
        let text = self.to_markdown();
        let write = |name: &str, text: &str| {
            let path = plan.directory.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        let json = serde_json::to_string_pretty(&self)?;
        // The next run writes over the first two; figures that are quoted somewhere can still be found.
        for name in ["report".to_owned(), format!("report-{}", self.made.name)] {
            write(&format!("{name}.md"), &text)?;
            write(&format!("{name}.json"), &json)?;
        }
        println!("\n{text}\nbench: written to {}", plan.directory.join("report.{md,json}").display());
        Ok(())
    }

    fn find_bars(&self) -> Vec<Bar> {
        let mut bars = Vec::new();
        if let Some(matrix) = &self.matrix {
            matrix.add_bars(&mut bars, self.made.binary.foreign);
        }
        if let Some(tokens) = &self.tokens {
            for row in tokens.rows.iter().filter(|row| row.tokens > 1) {
                bars.push(Bar::least(
                    format!("throughput, {} active tokens ÷ one", row.tokens),
                    0.90,
                    &row.ratio,
                ));
            }
            let bytes = tokens.bytes_per_policy;
            bars.push(Bar {
                what: "memory for each cached policy".to_owned(),
                wanted: "≤ 1024 bytes".to_owned(),
                found: format!("{bytes:.0} bytes"),
                verdict: Verdict::of(bytes <= 1024.0),
            });
        }
        if let Some(propagation) = &self.propagation {
            let p99 = propagation.all_p99 / 1000.0;
            bars.push(Bar {
                what: format!("edit in force on {} nodes, p99", propagation.nodes),
                wanted: "≤ 50 ms".to_owned(),
                found: format!("{p99:.1} ms"),
                verdict: Verdict::of(p99 <= 50.0),
            });
        }
        if let Some(signed) = &self.signed {
            signed.add_bars(&mut bars);
        }
        if let Some(metering) = &self.metering {
            metering.add_bars(&mut bars);
        }
        if let Some(outage) = &self.outage {
            outage.add_bars(&mut bars);
        }
        bars
    }

    fn to_markdown(&self) -> String {
        let made = &self.made;
        let mut text = format!(
            "# Bench of {}\n\n{}; {}, {} cores, Linux {}; load average at the start {}. {} worker threads each, {} \
             connections, {} rounds of {} ms windows.{}\n",
            made.at,
            made.measured(),
            made.machine,
            made.cores,
            made.kernel,
            made.load_average,
            made.threads,
            made.connections,
            made.rounds,
            made.window_ms,
            if made.quick { " A quick run: the figures are rough." } else { "" }
        );
        if !self.bars.is_empty() {
            text += "\n## Bars\n\n";
            let rows = self.bars.iter().map(|bar| {
                let verdict = match bar.verdict {
                    Verdict::Met => "met".to_owned(),
                    Verdict::Missed => "missed".to_owned(),
                    Verdict::SaysNothing(why) => format!("says nothing: {why}"),
                };
                vec![bar.what.clone(), bar.wanted.clone(), bar.found.clone(), verdict]
            });
            text += &table(&["what", "bar", "found", ""], rows);
        }
        if let Some(matrix) = &self.matrix {
            matrix.write(&mut text);
        }
        if let Some(tokens) = &self.tokens {
            tokens.write(&mut text);
        }
        if let Some(propagation) = &self.propagation {
            propagation.write(&mut text);
        }
        if let Some(signed) = &self.signed {
            signed.write(&mut text);
        }
        if let Some(metering) = &self.metering {
            metering.write(&mut text);
        }
        if let Some(streams) = &self.streams {
            streams.write(&mut text);
        }
        if let Some(outage) = &self.outage {
            outage.write(&mut text);
        }
        write_counted(&mut text, &self.counted);
        text
    }
}

impl Verdict {
    fn of(met: bool) -> Self {
        if met { Self::Met } else { Self::Missed }
    }
}

impl Bar {
    fn most(what: String, bar: f64, found: &Spread) -> Self {
        Self {
            what,
            wanted: format!("≤ {bar}"),
            found: spread(found, 3),
            verdict: Verdict::of(found.median <= bar),
        }
    }

    fn least(what: String, bar: f64, found: &Spread) -> Self {
        Self {
            what,
            wanted: format!("≥ {bar}"),
            found: spread(found, 3),
            verdict: Verdict::of(found.median >= bar),
        }
    }
}

impl Matrix {
    fn find(&self, kind: Kind, body: usize) -> Option<&Row> {
        self.rows.iter().find(|row| row.subject == kind.name() && row.body == body)
    }

    fn add_bars(&self, bars: &mut Vec<Bar>, foreign: bool) {
        let mut bodies: Vec<usize> = self.rows.iter().map(|row| row.body).collect();
        bodies.dedup();
        for body in &bodies {
            let (Some(bare), Some(gate)) =
                (self.find(Kind::BarePingora, *body), self.find(Kind::TollgateRedis, *body))
            else {
                continue;
            };
            let what = format!("CPU, Tollgate on Redis ÷ bare Pingora, {}", size(*body));
            let mut bar = Bar::most(what, 1.10, &gate.cpu.over(&bare.cpu));
            if foreign {
                bar.verdict = Verdict::SaysNothing("the two may differ in profile and allocator");
            }
            bars.push(bar);
            if let Some(lua) = self.find(Kind::NginxLua, *body) {
                let what = format!("CPU with Redis, Tollgate ÷ nginx + Lua, {}", size(*body));
                bars.push(Bar::most(what, 0.75, &gate.total_cpu.over(&lua.total_cpu)));
            }
            if let Some(commands) = &gate.store_commands {
                bars.push(Bar::most(
                    format!("store commands for each request, {}", size(*body)),
                    0.005,
                    commands,
                ));
            }
        }
    }

    fn write(&self, text: &mut String) {
        *text += "\n## Side by side\n\nProcessor time in µs for each request, at full load. In brackets the least and the most of \
                  the rounds. Latency at the fixed rate, in ms. Memory of the proxy.\n\n";
        let optional =
            |value: &Option<Spread>, digits| value.as_ref().map_or("–".to_owned(), |it| spread(it, digits));
        let over_bare = |row: &Row| {
            let bare = self.find(Kind::BarePingora, row.body);
            bare.map_or("–".to_owned(), |bare| format!("{:.2}", row.cpu.over(&bare.cpu).median))
        };
        let rows = self.rows.iter().map(|row| {
            vec![
                size(row.body),
                row.subject.to_owned(),
                spread(&row.cpu, 1),
                over_bare(row),
                optional(&row.redis_cpu, 1),
                optional(&row.store_commands, 4),
                optional(&row.store_reads, 4),
                format!("{:.0}", row.per_second.median),
                format!("{:.0}", row.rate.median),
                spread(&row.rate_cpu, 1),
                millis(&row.p50),
                millis(&row.p99),
                format!("{:.1} MiB", row.memory.median / 1024.0),
            ]
        });
        *text += &table(
            &[
                "body",
                "subject",
                "CPU",
                "÷ bare",
                "Redis CPU",
                "store commands",
                "store reads",
                "full load /s",
                "rate /s",
                "CPU at rate",
                "p50",
                "p99",
                "memory",
            ],
            rows,
        );
    }
}

impl Tokens {
    fn write(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Many tokens\n\n{} tokens in Redis, {} of them in use. Bodies of 0.4 KB.\n\n",
            self.stored, self.active
        );
        let row = |row: &InUse| {
            vec![
                row.tokens.to_string(),
                spread(&row.rate, 0),
                spread(&row.ratio, 3),
                spread(&row.cpu, 1),
                spread(&row.redis, 1),
                spread(&row.commands, 4),
            ]
        };
        *text += &table(
            &["tokens", "full load /s", "÷ one", "CPU µs", "Redis CPU", "store commands"],
            self.rows.iter().map(row),
        );
        let _ = write!(
            text,
            "\nFirst request of a token ({} of them, {} a second): p50 {:.2} ms, p99 {:.2} ms; of a known token at that rate: p50 \
             {:.2} ms, p99 {:.2} ms.\nMemory: {:.1} MiB before, {:.1} MiB after all were seen: {:.0} bytes each.\n",
            self.cold,
            self.cold_rate,
            self.cold_p50 / 1e3,
            self.cold_p99 / 1e3,
            self.known_p50 / 1e3,
            self.known_p99 / 1e3,
            self.memory_before / 1024.0,
            self.memory_after / 1024.0,
            self.bytes_per_policy,
        );
    }
}

impl Propagation {
    fn write(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Edits\n\n{} edits, in force on all {} nodes: p50 {:.2} ms, p99 {:.2} ms, at most {:.2} ms after the call was made; p50 \
             {:.2} ms, p99 {:.2} ms after it was answered. The call itself: p50 {:.2} ms, p99 {:.2} ms.\n",
            self.edits,
            self.nodes,
            self.all_p50 / 1e3,
            self.all_p99 / 1e3,
            self.all_max / 1e3,
            self.answered_p50 / 1e3,
            self.answered_p99 / 1e3,
            self.call_p50 / 1e3,
            self.call_p99 / 1e3,
        );
    }
}

impl Outage {
    fn add_bars(&self, bars: &mut Vec<Bar>) {
        let ratio = self.frozen_p99 / self.normal_p99;
        bars.push(Bar {
            what: "store frozen: p99 of a known token ÷ normal".to_owned(),
            wanted: "≤ 2".to_owned(),
            found: format!("{ratio:.2}"),
            verdict: Verdict::of(ratio <= 2.0 && self.others == 0),
        });
        let most = self.unknown_most / 1e3;
        bars.push(Bar {
            what: "store frozen: an unknown token is answered within".to_owned(),
            wanted: "≤ 50 ms".to_owned(),
            found: format!("{most:.1} ms"),
            verdict: Verdict::of(most <= 50.0 && self.others == 0),
        });
    }

    fn write(&self, text: &mut String) {
        let _ = write!(
            text,
            "\n## Outage\n\nThe store stood still for {:.0} s under {:.0} requests a second of a known token: {} served from credits in \
             hand, {} told 503, {} anything else.\nThe known token: p50 {:.2} ms, p99 {:.2} ms; before the outage p50 {:.2} ms, p99 \
             {:.2} ms. Tokens nobody knows: p99 {:.2} ms, at most {:.2} ms.\n",
            self.seconds,
            self.rate,
            self.served,
            self.told,
            self.others,
            self.frozen_p50 / 1e3,
            self.frozen_p99 / 1e3,
            self.normal_p50 / 1e3,
            self.normal_p99 / 1e3,
            self.unknown_p99 / 1e3,
            self.unknown_most / 1e3,
        );
    }
}

fn write_counted(text: &mut String, counted: &[Counted]) {
    if counted.is_empty() {
        return;
    }
    *text += "\n## Counted\n\nFor each request, bodies of 0.4 KB, one connection, one worker thread.\n\n";
    let first = counted.first().and_then(|bare| bare.instructions);
    let rows = counted.iter().map(|row| {
        let ratio =
            row.instructions.zip(first).map_or("–".to_owned(), |(own, bare)| format!("{:.2}", own / bare));
        let mut names: Vec<_> = row.calls_by_name.iter().collect();
        names.sort_by(|a, b| b.1.total_cmp(a.1));
        let names: Vec<String> = names.iter().map(|(name, calls)| format!("{name} {calls:.2}")).collect();
        vec![
            row.subject.to_owned(),
            row.instructions.map_or("–".to_owned(), |count| format!("{count:.0}")),
            ratio,
            row.calls.map_or("–".to_owned(), |calls| format!("{calls:.2}")),
            names.join(", "),
        ]
    });
    *text += &table(&["subject", "instructions", "÷ bare", "system calls", "which"], rows);
}

fn spread(value: &Spread, digits: usize) -> String {
    format!("{:.digits$} ({:.digits$}–{:.digits$})", value.median, value.min, value.max)
}

fn millis(value: &Spread) -> String {
    format!("{:.2}", value.median / 1e3)
}

fn size(bytes: usize) -> String {
    if bytes < 10_000 { format!("{:.1} KB", bytes as f64 / 1000.0) } else { format!("{} KB", bytes / 1024) }
}

/// A Markdown table whose columns line up, so that it reads well in a terminal too.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.collect();
    let width = |column: usize| {
        let cells = std::iter::once(&head).chain(&rows).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
    };
    let rule: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let mut text = line(&head) + &line(&rule);
    text.extend(rows.iter().map(|row| line(row)));
    text
}
