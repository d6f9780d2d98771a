//! **Usage**: credits over time, by data set, by operation, by token; what was refused; the account's budget.
//!
//! [`asked`] reads which usage is asked for; [`report`] puts what the admin API tells in order; `csv` writes files;
//! [`view`] makes rows and pictures of it; [`budget`] shows and sets the account's budget.

use std::collections::{BTreeSet, HashMap};

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;

use super::USAGE;
use crate::console::Console;
use crate::console::api::Refusal;
use crate::console::form::Form;
use crate::console::layout::{Failure, Frame, page};
use crate::console::names::{self, Names};
use crate::console::notice::Notice;
use crate::console::session::Visitor;
use crate::console::shape::{Limits, Token};
use crate::policy::Pool;

mod asked;
pub(super) mod budget;
mod csv;
mod report;
mod view;

use asked::{Asked, By, Last};
use budget::{Account, BudgetForm};
use report::{Line, Report};
use view::{Chart, Pages, Row, Totals};

/// Up to so many tokens can be chosen from a list.
const FEW_TOKENS: usize = 50;

/// Something that can be chosen: its value, its name, whether it is.
struct Choice {
    value: String,
    name: String,
    is_chosen: bool,
}

/// A link to the same page with one thing changed.
struct Link {
    to: String,
    name: &'static str,
    is_here: bool,
}

#[derive(Template)]
#[template(path = "usage.html")]
struct UsagePage {
    frame: Frame,
    errors: Vec<String>,
    /// Of which token; `None`: of all.
    token: Option<Token>,
    token_id: String,
    /// Nothing: there are too many to choose from a list.
    tokens: Vec<Choice>,
    last: &'static str,
    from: String,
    to: String,
    range: String,
    by: Vec<Choice>,
    pools: Vec<Choice>,
    presets: Vec<Link>,
    totals: Option<Totals>,
    charts: Vec<Chart>,
    rows: Vec<Row>,
    total: Option<Row>,
    column: &'static str,
    pages: Pages,
    refusals: Option<Chart>,
    refused: Vec<(String, String)>,
    downloads: Option<Downloads>,
    budget: Option<BudgetForm>,
    limits: Vec<String>,
}

struct Downloads {
    csv: String,
    json: String,
    refusals: String,
}

/// What is shown besides the usage itself.
#[derive(Default)]
pub(super) struct Said {
    notice: Option<Notice>,
    /// The budget as it was typed.
    typed: Option<BudgetForm>,
    status: Option<StatusCode>,
}

/// `GET /console/usage`
pub(crate) async fn show(
    visitor: Visitor,
    State(console): State<Console>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    render(&console, &visitor, &query, Said::default()).await
}

/// What a budget line is drawn by, and whose it is.
struct Bounds {
    limits: Limits,
    name: &'static str,
}

async fn render(console: &Console, visitor: &Visitor, query: &Form, said: Said) -> Result<Response, Failure> {
    let now = Timestamp::now();
    let (mut asked, mut errors) = match Asked::read(query, now) {
        Ok(asked) => (asked, Vec::new()),
        Err(errors) => (Asked::by_default(now), errors),
    };
    let api = &console.api;
    let fail = |refusal| Failure::of(visitor, refusal);
    let account: Account = api.get(&visitor.caller, "/v1/account").await.map_err(fail)?;
    let token = match &asked.token {
        Some(id) => match api.get::<Token>(&visitor.caller, &format!("/v1/tokens/{id}")).await {
            Ok(token) => Some(token),
            Err(refusal) if refusal.code == "token_not_found" => {
                errors.push(refusal.detail);
                asked.token = None;
                None
            }
            Err(refusal) => return Err(fail(refusal)),
        },
        None => None,
    };
    let report = if errors.is_empty() { Some(ask(console, visitor, &asked).await?) } else { None };
    let budget = said.typed.or_else(|| token.is_none().then(|| BudgetForm::of(&account)));
    let bounds = match &token {
        Some(token) => Bounds { limits: token.credit_limit.clone(), name: "Limit" },
        None => Bounds { limits: account.budget, name: "Budget" },
    };
    let mut template = frame_of(console, visitor, &asked, token, &bounds).await;
    template.frame = template.frame.with_notice(said.notice);
    template.budget = budget;
    if let Some(report) = report {
        fill(console, visitor, &mut template, &asked, &report, &bounds).await;
    }
    let bad = (!errors.is_empty()).then_some(StatusCode::BAD_REQUEST);
    template.errors = errors;
    Ok(page(said.status.or(bad).unwrap_or(StatusCode::OK), &template))
}

async fn ask(console: &Console, visitor: &Visitor, asked: &Asked) -> Result<Report, Failure> {
    console.api.get(&visitor.caller, &asked.api_path()).await.map_err(|refusal| Failure::of(visitor, refusal))
}

/// The page with its filters, and nothing in it yet.
async fn frame_of(
    console: &Console,
    visitor: &Visitor,
    asked: &Asked,
    token: Option<Token>,
    bounds: &Bounds,
) -> UsagePage {
    let token_id = asked.token.as_ref().map(ToString::to_string).unwrap_or_default();
    let title =
        token.as_ref().map_or_else(|| "Usage".to_owned(), |token| format!("Usage of {}", token.name()));
    let tokens = names::all_if_few(console, visitor, FEW_TOKENS).await.unwrap_or_default();
    let choose = |(id, name): (String, String)| Choice { is_chosen: id == token_id, value: id, name };
    let presets = Last::ALL.map(|last| {
        let by = if asked.by.is_time() { last.by() } else { asked.by };
        let to = Asked { last: Some(last), by, page: 1, ..asked.clone() }.link(USAGE);
        Link { to, name: last.title(), is_here: asked.last == Some(last) }
    });
    let by = By::ALL.into_iter().filter(|by| *by != By::Token || token.is_none());
    let by = by.map(|by| Choice {
        value: by.as_str().to_owned(),
        name: by.title().to_owned(),
        is_chosen: asked.by == by,
    });
    let pools = [("", "Core and premium"), ("core", "Core"), ("premium", "Premium")];
    let pools = pools.map(|(value, name)| Choice {
        value: value.to_owned(),
        name: name.to_owned(),
        is_chosen: asked.pool.map_or("", Pool::as_str) == value,
    });
    UsagePage {
        frame: visitor.frame(&title, "usage"),
        errors: Vec::new(),
        tokens: tokens.into_iter().map(choose).collect(),
        token_id,
        last: asked.last.map_or("", Last::as_str),
        from: asked.first_day().to_string(),
        to: asked.last_day().to_string(),
        range: asked.range_text(),
        by: by.collect(),
        pools: pools.into(),
        presets: presets.into(),
        totals: None,
        charts: Vec::new(),
        rows: Vec::new(),
        total: None,
        column: asked.by.title(),
        pages: Pages::default(),
        refusals: None,
        refused: Vec::new(),
        downloads: None,
        budget: None,
        limits: if token.is_some() { view::limits_in_words(&bounds.limits) } else { Vec::new() },
        token,
    }
}

async fn fill(
    console: &Console,
    visitor: &Visitor,
    template: &mut UsagePage,
    asked: &Asked,
    report: &Report,
    bounds: &Bounds,
) {
    let lines = report.lines(asked.by);
    let total = report::total(&lines);
    // In a table the newest comes first; what is compared stands in order already.
    let mut shown: Vec<&Line> = lines.iter().filter(|line| line.sums(asked.pool).requests > 0).collect();
    if asked.by.is_time() {
        shown.reverse();
    }
    let (pages, shown) = view::cut(asked, &shown);
    // In the picture stand the first of all, whichever page of the table is shown.
    let named: Vec<&Line> = lines.iter().take(view::RANKS).chain(shown.iter().copied()).collect();
    let names = if asked.by == By::Token { names_of(console, visitor, &named).await } else { Names::new() };
    template.charts = if asked.by.is_time() {
        view::over_time(asked, &lines, &bounds.limits, bounds.name)
    } else {
        view::compared(asked, &lines, &names).into_iter().collect()
    };
    template.rows = shown.iter().map(|line| Row::of(asked, line, &names)).collect();
    template.total = (!shown.is_empty()).then(|| Row::total(asked, &total));
    template.pages = pages;
    template.totals = Some(Totals::of(asked, &total, &report.refusals));
    template.refusals = view::refused(&report.refusals);
    template.refused = view::refusal_rows(&report.refusals);
    let link = |path: &str| Asked { page: 1, ..asked.clone() }.link(path);
    template.downloads = Some(Downloads {
        csv: link("/console/usage.csv"),
        json: link("/console/usage.json"),
        refusals: format!("{}&of=refusals", link("/console/usage.csv")),
    });
}

async fn names_of(console: &Console, visitor: &Visitor, lines: &[&Line]) -> Names {
    let ids: BTreeSet<_> = lines.iter().map(|line| line.key.as_str()).filter(|id| !id.is_empty()).collect();
    names::of(console, visitor, &ids.into_iter().collect::<Vec<_>>()).await
}

/// What a download is made of.
async fn load(
    console: &Console,
    visitor: &Visitor,
    query: &Form,
) -> Result<(Asked, Vec<Line>, Report, Names), Failure> {
    let asked = Asked::read(query, Timestamp::now()).map_err(|errors| {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, &errors.join(" "));
        Failure::of(visitor, refusal)
    })?;
    let report = ask(console, visitor, &asked).await?;
    let lines = report.lines(asked.by);
    let names = if asked.by == By::Token {
        names_of(console, visitor, &lines.iter().collect::<Vec<_>>()).await
    } else {
        HashMap::new()
    };
    Ok((asked, lines, report, names))
}

fn file(name: &str, r#type: &'static str, text: String) -> Response {
    let headers = [
        (header::CONTENT_TYPE, r#type.to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{name}\"")),
    ];
    (headers, text).into_response()
}

/// `GET /console/usage.csv`: what was used, or with `of=refusals` what was refused, for spreadsheets.
pub(crate) async fn download_csv(
    visitor: Visitor,
    State(console): State<Console>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let (asked, lines, report, names) = load(&console, &visitor, &query).await?;
    let (name, text) = if query.text("of") == "refusals" {
        let (from, to) = (asked.first_day(), asked.last_day());
        (format!("tollgate-refusals-{from}-to-{to}"), report::refusals_to_csv(&report.refusals))
    } else {
        (asked.file_name(), report::to_csv(&asked, &lines, &names))
    };
    Ok(file(&format!("{name}.csv"), "text/csv; charset=utf-8", text))
}

/// `GET /console/usage.json`: the same for programs.
pub(crate) async fn download_json(
    visitor: Visitor,
    State(console): State<Console>,
    RawQuery(query): RawQuery,
) -> Result<Response, Failure> {
    let query = Form::parse(query.unwrap_or_default().as_bytes());
    let (asked, lines, report, names) = load(&console, &visitor, &query).await?;
    let text = format!("{:#}\n", report::to_json(&asked, &lines, &report.refusals, &names));
    Ok(file(&format!("{}.json", asked.file_name()), "application/json", text))
}
