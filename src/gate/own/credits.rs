//! What is left of a token's credits, for whoever holds it.

use serde_json::{Map, Value, json};

use super::Desk;
use crate::ledger::period_end;
use crate::policy::{Denial, Limit, Period, Policy, Pool};
use crate::store::Counted;

impl Desk<'_> {
    /// For each pool what was used in the limit's period (without a limit: this month), the limit, what is left under it
    /// and under the account's budget, and when the period ends. What this node has not yet told the store is counted in.
    pub(super) async fn credits(&self, policy: &Policy) -> Result<Value, Denial> {
        let unsettled = Pool::ALL.map(|pool| self.meter.unsettled(&policy.id, pool));
        let (id, account) = (&policy.id, &policy.account);
        let of_token =
            self.patient(self.line.call("token_usage", |store| store.token_usage(account, id))).await?;
        let budget = self.account_or_none(account).await?.map(|account| account.budget).unwrap_or_default();
        let of_account =
            self.patient(self.line.call("account_usage", |store| store.account_usage(account))).await?;
        let mut pools = Map::new();
        for (pool, unsettled) in Pool::ALL.into_iter().zip(unsettled) {
            let limit = *policy.credit_limit.get(pool);
            let used = |limit: Option<Limit>, counted: &Counted| {
                let period = limit.map_or(Period::Month, |limit| limit.period);
                counted.counters.get(pool).used(period, counted.at).0.saturating_add(unsettled)
            };
            let left = |limit: Option<Limit>, counted: &Counted| {
                limit.map(|limit| limit.credits.0.saturating_sub(used(Some(limit), counted)))
            };
            let own = left(limit, &of_token);
            let shared = left(*budget.get(pool), &of_account);
            let resets = limit.and_then(|limit| period_end(limit.period, of_token.at));
            let told = json!({
                "used": used(limit, &of_token),
                "limit": limit.map(|limit| json!({"credits": limit.credits.0, "period": limit.period.as_str()})),
                "remaining": own.into_iter().chain(shared).min(),
                "resets_at": resets.map(|at| at.to_string()),
            });
            pools.insert(pool.as_str().to_owned(), told);
        }
        Ok(Value::Object(pools))
    }
}
