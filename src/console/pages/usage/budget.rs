//! The account's budget: what is used of it, and how it is set.

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::USAGE;
use super::{Said, render};
use crate::console::Console;
use crate::console::chart::{Colour, draw_share};
use crate::console::form::{Form, Posted};
use crate::console::layout::{Failure, go};
use crate::console::notice::Notice;
use crate::console::shape::{Limit, Limits, PERIODS, PoolUsage, Receipt, Usage, in_period, number};
use crate::console::words::{grouped, moment};

/// The account, as the admin API tells of it.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Account {
    pub(super) budget: Limits,
    usage: Usage,
    version: u64,
}

/// The budget of both pools on the page.
#[derive(Debug, Clone)]
pub(super) struct BudgetForm {
    pub(super) version: u64,
    pub(super) pools: Vec<PoolForm>,
}

/// The budget of one pool.
#[derive(Debug, Clone)]
pub(super) struct PoolForm {
    pub(super) pool: &'static str,
    pub(super) title: &'static str,
    pub(super) is_set: bool,
    /// A bar of what is used; empty without a budget.
    pub(super) bar: String,
    pub(super) text: String,
    /// What the bar's parts stand for: the style's name for each, words, how many.
    pub(super) parts: Vec<(&'static str, &'static str, String)>,
    pub(super) resets: String,
    /// As it stands in the fields.
    pub(super) credits: String,
    pub(super) period: String,
    pub(super) error: String,
}

impl BudgetForm {
    pub(super) fn of(account: &Account) -> Self {
        let (budget, usage) = (&account.budget, &account.usage);
        let pools = vec![
            PoolForm::of("core", "Core", &usage.core, budget.core.as_ref()),
            PoolForm::of("premium", "Premium", &usage.premium, budget.premium.as_ref()),
        ];
        Self { version: account.version, pools }
    }

    /// The same, with what was typed.
    fn typed(mut self, form: &Form) -> Self {
        for pool in &mut self.pools {
            form.text(&format!("{}-credits", pool.pool)).clone_into(&mut pool.credits);
            form.text(&format!("{}-period", pool.pool)).clone_into(&mut pool.period);
        }
        self
    }
}

impl PoolForm {
    /// The periods there are: value, name, and whether it is chosen.
    pub(super) fn periods(&self) -> Vec<(&'static str, &'static str, bool)> {
        PERIODS.iter().map(|(value, name)| (*value, *name, self.period == *value)).collect()
    }

    fn of(pool: &'static str, title: &'static str, usage: &PoolUsage, limit: Option<&Limit>) -> Self {
        let colour = if pool == "core" { Colour::Core } else { Colour::Premium };
        let used = grouped(usage.used);
        let text = match limit {
            Some(limit) => {
                format!("{used} of {} credits used {}", grouped(limit.credits), in_period(&limit.period))
            }
            None => format!("{used} credits used {}; no budget", in_period(&usage.period)),
        };
        // What is stranded counts as used, if it is of this period; of which it is the API does not say.
        let stranded = usage.stranded.min(usage.used);
        let spent = usage.used - stranded;
        let parts = [(spent, colour), (stranded, Colour::Stranded), (usage.leased, Colour::Leased)];
        let label = format!("{title} budget: {text}, {} on lease.", grouped(usage.leased));
        let mut told = vec![
            (pool, "used", used),
            ("leased", "on lease", grouped(usage.leased)),
            ("stranded", "of them stranded", grouped(usage.stranded)),
        ];
        if let Some(left) = usage.remaining {
            told.push(("left", "left", grouped(left)));
        }
        Self {
            pool,
            title,
            is_set: limit.is_some(),
            bar: limit.map_or_else(String::new, |limit| draw_share(&label, &parts, limit.credits)),
            text,
            parts: told,
            resets: usage.resets_at.as_deref().filter(|_| limit.is_some()).map(moment).unwrap_or_default(),
            credits: limit.map(|limit| limit.credits.to_string()).unwrap_or_default(),
            period: limit.map_or("month", |limit| limit.period.as_str()).to_owned(),
            error: String::new(),
        }
    }
}

/// What a button of the form asks for: which pool, and whether its budget is to go.
fn pressed(form: &Form) -> Option<(&'static str, bool)> {
    match form.text("action") {
        "set-core" => Some(("core", false)),
        "remove-core" => Some(("core", true)),
        "set-premium" => Some(("premium", false)),
        "remove-premium" => Some(("premium", true)),
        _ => None,
    }
}

/// `POST /console/usage/budget`
pub(crate) async fn save(
    State(console): State<Console>,
    Posted { visitor, form }: Posted,
) -> Result<Response, Failure> {
    let Some((pool, is_removed)) = pressed(&form) else {
        return Ok(go(USAGE, &Notice::error("Say which budget is to be set. Nothing was changed.")));
    };
    let text = form.text(&format!("{pool}-credits"));
    let limit = match (is_removed, text.is_empty()) {
        (true, _) => Value::Null,
        (false, true) => {
            return again(
                &console,
                &visitor,
                &form,
                vec![(pool, "type how many credits".to_owned())],
                NOT_TAKEN,
            )
            .await;
        }
        (false, false) => json!({ "credits": number(text), "period": form.text(&format!("{pool}-period")) }),
    };
    let body = json!({ "budget": { pool: limit } });
    let sent = console
        .api
        .send::<Value>(&visitor.caller, Method::PATCH, "/v1/account?wait=2s", &body, form.version())
        .await;
    match sent {
        Ok(answer) => {
            let receipt = Receipt::sentence_of(&answer);
            let did = if is_removed { "removed" } else { "set" };
            Ok(go(
                &format!("{USAGE}#budget"),
                &Notice::done(format!("The {pool} budget is {did}. {receipt}")),
            ))
        }
        Err(refusal) if refusal.is_conflict() => {
            let detail = "Somebody else changed the budget meanwhile. Nothing of yours was saved; look at what stands here \
                          and set it again.";
            Ok(go(&format!("{USAGE}#budget"), &Notice::error(detail)))
        }
        Err(refusal) if refusal.status() == StatusCode::UNPROCESSABLE_ENTITY => {
            let errors = refusal.errors.iter().map(|error| (pool, error.detail.clone())).collect();
            again(&console, &visitor, &form, errors, NOT_TAKEN).await
        }
        Err(refusal) => Err(Failure::of(&visitor, refusal)),
    }
}

const NOT_TAKEN: &str = "The budget cannot be taken so; nothing was changed.";

/// The page once more, with what was typed and what is wrong with it.
async fn again(
    console: &Console,
    visitor: &crate::console::session::Visitor,
    form: &Form,
    errors: Vec<(&str, String)>,
    detail: &str,
) -> Result<Response, Failure> {
    let account = console.api.get::<Account>(&visitor.caller, "/v1/account").await;
    let account = account.map_err(|refusal| Failure::of(visitor, refusal))?;
    let mut typed = BudgetForm::of(&account).typed(form);
    for pool in &mut typed.pools {
        let own = errors.iter().filter(|(of, _)| *of == pool.pool).map(|(_, detail)| detail.as_str());
        pool.error = own.collect::<Vec<_>>().join("; ");
    }
    let said = Said {
        notice: Some(Notice::error(detail)),
        typed: Some(typed),
        status: Some(StatusCode::UNPROCESSABLE_ENTITY),
    };
    render(console, visitor, &Form::default(), said).await
}
