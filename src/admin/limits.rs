//! Credits for each pool, as tokens (`credit_limit`) and accounts (`budget`) have them: read, shown, and what is used.

use serde::Serialize;
use utoipa::ToSchema;

use super::fields::{Field, Object, Problems};
use super::schema;
use crate::ledger::period_end;
use crate::policy::cost::MAX_CREDITS;
use crate::policy::{Credits, Limit, PerPool, Period, Pool};
use crate::store::Counted;

/// Credits in a period.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limit)]
pub(super) struct LimitView {
    /// How many.
    #[schema(schema_with = schema::credits)]
    credits: u64,
    /// In which stretch of time, by the UTC calendar.
    #[schema(schema_with = schema::period)]
    period: &'static str,
}

/// Credits in a period, for each pool; `null`: no limit.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Limits)]
pub(super) struct LimitsView {
    /// For core and data set routes.
    #[schema(required)]
    core: Option<LimitView>,
    /// For premium routes.
    #[schema(required)]
    premium: Option<LimitView>,
}

impl From<&PerPool<Option<Limit>>> for LimitsView {
    fn from(limits: &PerPool<Option<Limit>>) -> Self {
        let view = |limit: Option<Limit>| {
            limit.map(|limit| LimitView { credits: limit.credits.0, period: limit.period.as_str() })
        };
        Self { core: view(limits.core), premium: view(limits.premium) }
    }
}

/// What is used of one pool in the limit's current period; without a limit, in this month.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = PoolUsage)]
pub(super) struct PoolUsage {
    /// Credits that are spent.
    used: u64,
    /// Credits in the hands of nodes, counted but not spent.
    leased: u64,
    /// Those of all time that count as used only because a node has not come back to say.
    stranded: u64,
    /// What is left: neither used nor leased; `null`: there is no limit.
    #[schema(required)]
    remaining: Option<u64>,
    /// The period that is counted.
    #[schema(schema_with = schema::period)]
    period: &'static str,
    /// When the count starts anew; `null`: never.
    #[schema(required, format = DateTime)]
    resets_at: Option<String>,
}

/// What is used, for each pool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(super) struct UsageView {
    /// Of core credits.
    core: PoolUsage,
    /// Of premium credits.
    premium: PoolUsage,
}

impl UsageView {
    /// Reads what is counted by the limits it counts for.
    pub(super) fn new(counted: &Counted, limits: &PerPool<Option<Limit>>) -> Self {
        let now = counted.at;
        let of = |pool: Pool| {
            let limit = *limits.get(pool);
            let period = limit.map_or(Period::Month, |limit| limit.period);
            let counter = counted.counters.get(pool);
            let committed = counter.committed(period, now).0;
            PoolUsage {
                used: counter.used(period, now).0,
                leased: counter.leased(period, now).0,
                stranded: counted.stranded.get(pool).0,
                remaining: limit.map(|limit| limit.credits.0.saturating_sub(committed)),
                period: period.as_str(),
                resets_at: period_end(period, now).map(|end| end.to_string()),
            }
        };
        Self { core: of(Pool::Core), premium: of(Pool::Premium) }
    }
}

/// Applies a merge patch (RFC 7396) to the limits: absent keeps, `null` takes away.
pub(super) fn merge_limits(
    field: Option<Field<'_>>,
    limits: &mut PerPool<Option<Limit>>,
    problems: &mut Problems,
) {
    let Some(field) = field else { return };
    let Some(field) = field.unless_null() else {
        *limits = PerPool::default();
        return;
    };
    let Some(object) = field.object(&Pool::ALL.map(Pool::as_str), problems) else { return };
    for pool in Pool::ALL {
        let Some(field) = object.field(pool.as_str()) else { continue };
        let limit = limits.get_mut(pool);
        match field.unless_null() {
            Some(field) => *limit = merge_limit(&field, *limit, problems),
            None => *limit = None,
        }
    }
}

fn merge_limit(field: &Field<'_>, stored: Option<Limit>, problems: &mut Problems) -> Option<Limit> {
    let object = field.object(&["credits", "period"], problems)?;
    let credits = "a whole number of credits";
    let credits = member(&object, "credits", credits, stored.map(|limit| limit.credits), problems);
    let credits = credits.and_then(|merged| match merged {
        Merged::Stored(credits) => Some(credits),
        Merged::Given(field) => field.whole(0, MAX_CREDITS, problems).map(Credits),
    });
    let periods = "hour, day, month or none";
    let period = member(&object, "period", periods, stored.map(|limit| limit.period), problems);
    let period = period.and_then(|merged| match merged {
        Merged::Stored(period) => Some(period),
        Merged::Given(field) => field.choice(periods, Period::parse, problems),
    });
    Some(Limit { credits: credits?, period: period? })
}

/// A member after a merge patch: as stored, or given anew.
pub(super) enum Merged<'a, T> {
    /// It is not in the patch.
    Stored(T),
    /// It is, and not `null`.
    Given(Field<'a>),
}

/// A member that must be there after the patch.
pub(super) fn member<'a, T>(
    object: &Object<'a>,
    name: &str,
    expected: &str,
    stored: Option<T>,
    problems: &mut Problems,
) -> Option<Merged<'a, T>> {
    match (object.field(name), stored) {
        (None, Some(stored)) => Some(Merged::Stored(stored)),
        (None, None) | (Some(_), _) => object.required(name, expected, problems).map(Merged::Given),
    }
}
