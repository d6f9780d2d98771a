//! The account endpoints of dialect iex, over what the store has counted (`clients.md`).
//!
//! Owns what the original's words mean here. A message is a core credit; premium credits are accounted apart and are not in
//! these figures. The quota is the account's core budget, and pay-as-you-go lifts it: the budget is set aside, kept in the
//! account's record, and comes back when pay-as-you-go is switched off. The message budget, which is the circuit breaker
//! too, is the core budget itself, in a month. So there is one figure that refuses, the account's budget, and every node
//! acts by it at once. Where there is no limit, the largest number of credits is told: clients of typed languages want a number.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::Desk;
use crate::ledger::period_start;
use crate::policy::cost::MAX_CREDITS;
use crate::policy::record::{Account, PayAsYouGo};
use crate::policy::{AccountId, Credits, Denial, Limit, Period, Policy, Pool};
use crate::store::trail::{Actor, Note, account_changes};
use crate::store::{UsageRow, Written};

/// Edits that are overtaken are made again so often.
const ATTEMPTS: usize = 8;

impl Desk<'_> {
    async fn account(&self, id: &AccountId) -> Result<Account, Denial> {
        let call = self.line.call("get_account", |store| store.get_account(id));
        self.patient(call).await?.ok_or(Denial::StoreUnavailable)
    }

    pub(super) async fn account_or_none(&self, id: &AccountId) -> Result<Option<Account>, Denial> {
        self.patient(self.line.call("get_account", |store| store.get_account(id))).await
    }

    /// Waits for the store as long as a request does.
    pub(super) async fn patient<T>(
        &self,
        call: impl Future<Output = Result<T, Denial>>,
    ) -> Result<T, Denial> {
        tokio::time::timeout(self.patience, call).await.unwrap_or(Err(Denial::StoreUnavailable))
    }

    pub(super) async fn metadata(&self, id: &AccountId) -> Result<Value, Denial> {
        let account = self.account(id).await?;
        let counted = self.patient(self.line.call("account_usage", |store| store.account_usage(id))).await?;
        let quota = quota(&account);
        let period = quota.map_or(Period::Month, |limit| limit.period);
        let used = counted.counters.core.used(period, counted.at).0;
        let term = match period {
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Month => "monthly",
            Period::None => "lifetime",
        };
        Ok(json!({
            "payAsYouGoEnabled": account.pay_as_you_go != PayAsYouGo::Off,
            "effectiveDate": account.created_at.as_millisecond(),
            "subscriptionTermType": term,
            "tierName": account.id.as_str(),
            "messageLimit": figure(quota),
            "messagesUsed": used,
            "circuitBreaker": figure(account.budget.core),
            "creditLimit": figure(quota),
            "creditsUsed": used,
        }))
    }

    /// What was used this month, by day, token and data set. What no data set is named for is under `OTHER`.
    pub(super) async fn messages(&self, id: &AccountId) -> Result<Value, Denial> {
        let account = self.account(id).await?;
        let counted = self.patient(self.line.call("account_usage", |store| store.account_usage(id))).await?;
        let month = counted.counters.core.used(Period::Month, counted.at).0;
        let from = period_start(Period::Month, counted.at);
        // The month of a large account is more than one record.
        let call = self.line.call("usage", |store| store.usage(id, None, from, counted.at));
        let patience = self.patience.saturating_mul(25);
        let rows = tokio::time::timeout(patience, call).await.unwrap_or(Err(Denial::StoreUnavailable))?;
        let mut sums = Sums::default();
        for row in &rows {
            sums.add(row);
        }
        let paid = match account.pay_as_you_go {
            PayAsYouGo::On { quota: Some(quota) } => month.saturating_sub(quota.credits.0),
            PayAsYouGo::On { quota: None } | PayAsYouGo::Off => 0,
        };
        Ok(json!({
            "dailyUsage": texts(sums.days),
            "monthlyUsage": month,
            "monthlyPayAsYouGo": paid,
            "tokenUsage": texts(sums.tokens),
            "keyUsage": texts(sums.datasets),
        }))
    }

    pub(super) async fn pay_as_you_go(&self, by: &Policy, allow: bool) -> Result<Value, Denial> {
        let account = self.edit(by, |account| switch(account, allow)).await?;
        Ok(json!({"payAsYouGoEnabled": allow, "overageCircuitBreaker": figure(account.budget.core)}))
    }

    pub(super) async fn message_budget(&self, by: &Policy, total: Credits) -> Result<Value, Denial> {
        let budget = Limit { credits: total, period: Period::Month };
        let account = self.edit(by, |account| account.budget.core = Some(budget)).await?;
        Ok(json!({"overageCircuitBreaker": figure(account.budget.core)}))
    }

    /// Edits the account of the secret token that asks. An edit that changes nothing writes nothing.
    async fn edit(&self, by: &Policy, change: impl Fn(&mut Account)) -> Result<Account, Denial> {
        for _ in 0..ATTEMPTS {
            let stored = self.account(&by.account).await?;
            let mut account = stored.clone();
            change(&mut account);
            if account == stored {
                return Ok(account);
            }
            let note = Note {
                actor: Actor::Token(by.id.clone()),
                client: self.client,
                action: "account.edit",
                target: account.id.to_string(),
                changes: account_changes(&stored, &account),
            };
            let put = self.line.call("put_account", |store| store.put_account(&account, &note));
            match self.patient(put).await? {
                Written::Done { .. } => return Ok(account),
                Written::Conflict { .. } => {}
                Written::Missing => break,
            }
        }
        Err(Denial::StoreUnavailable)
    }
}

/// Switches pay-as-you-go. On: the core budget is set aside. Off: it comes back.
fn switch(account: &mut Account, allow: bool) {
    match (account.pay_as_you_go, allow) {
        (PayAsYouGo::Off, true) => {
            account.pay_as_you_go = PayAsYouGo::On { quota: account.budget.core.take() };
        }
        (PayAsYouGo::On { quota }, false) => {
            account.budget.core = quota;
            account.pay_as_you_go = PayAsYouGo::Off;
        }
        (PayAsYouGo::Off, false) | (PayAsYouGo::On { .. }, true) => {}
    }
}

/// What the account has without paying more.
fn quota(account: &Account) -> Option<Limit> {
    match account.pay_as_you_go {
        PayAsYouGo::Off => account.budget.core,
        PayAsYouGo::On { quota } => quota,
    }
}

fn figure(limit: Option<Limit>) -> u64 {
    limit.map_or(MAX_CREDITS, |limit| limit.credits.0)
}

/// Credits of usage cells, by what they are asked for by.
#[derive(Default)]
struct Sums {
    days: BTreeMap<String, u64>,
    tokens: BTreeMap<String, u64>,
    datasets: BTreeMap<String, u64>,
}

impl Sums {
    fn add(&mut self, row: &UsageRow) {
        let UsageRow::Used { token, pool: Pool::Core, cell } = row else { return };
        let day = jiff::Timestamp::from_second(cell.hour).unwrap_or_default();
        let day = day.strftime("%Y%m%d").to_string();
        let dataset = if cell.dataset.is_empty() { "OTHER" } else { &cell.dataset };
        for (map, key) in [
            (&mut self.days, day),
            (&mut self.tokens, token.as_str().to_owned()),
            (&mut self.datasets, dataset.to_owned()),
        ] {
            let sum = map.entry(key).or_default();
            *sum = sum.saturating_add(cell.credits);
        }
    }
}

fn texts(map: BTreeMap<String, u64>) -> BTreeMap<String, String> {
    map.into_iter().map(|(key, sum)| (key, sum.to_string())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::PerPool;

    #[test]
    fn pay_as_you_go_sets_the_quota_aside_and_puts_it_back() {
        let limit = |text: &str| Some(Limit::parse(text).unwrap());
        let mut account = Account {
            id: AccountId::default_account(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            budget: PerPool { core: limit("10/day"), premium: limit("3") },
            pay_as_you_go: PayAsYouGo::Off,
            version: 1,
        };
        let before = account.clone();
        switch(&mut account, false);
        assert_eq!(account, before);
        switch(&mut account, true);
        switch(&mut account, true);
        assert_eq!(account.pay_as_you_go, PayAsYouGo::On { quota: limit("10/day") });
        assert_eq!(account.budget, PerPool { core: None, premium: limit("3") });
        assert_eq!(quota(&account), limit("10/day"));
        account.budget.core = limit("50/month");
        switch(&mut account, false);
        assert_eq!(account, before);
    }
}
