//! What a request costs: every form of `policy.md`, "Credits", as one formula.
//!
//! ```text
//! price = credits × items                                  (items: 1 without `per_item`)
//!       + per_kilobyte × begun kilobytes of the body        (1,000 bytes, as they go out to the client)
//!       + per_record or per_event × what the body holds     (see `super::super::tally` for what counts)
//! or    = what the header `from_header` of the response says; `credits` where it says nothing
//! price ≤ max_credits
//! ```
//!
//! Owns the arithmetic, which never overflows: sums stop at [`MAX_CREDITS`]. It must not know how a body is read or
//! where credits come from. The way of one request:
//!
//! 1. [`Price::hold`] before the request: what is taken at once, and what may come besides ([`Rest`]).
//! 2. [`Price::rates`] when the response begins, with the header's word; then [`super::super::tally::Flow`] counts.
//! 3. [`Rates::of`] at the end (or at any time before): the price of what was seen.
//!
//! A response of 400 and above costs nothing; that is the gate's to know.

use std::fmt;

use http::HeaderName;

use super::{Credits, MAX_CREDITS};
use crate::policy::tally::BodyKind;

/// Bytes of a kilobyte, as in `64KB` elsewhere in `proxy.yaml`.
pub const KILOBYTE: u64 = 1_000;

/// Response headers that steer the exchange itself, and so can state no price.
const STEERING: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "keep-alive",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The parts of a formula, as `proxy.yaml` names them. [`Price::new`] says whether they go together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Form {
    /// `credits`: for a request, or for each of its items.
    pub credits: Credits,
    /// Whether `per_item` is there.
    pub per_item: bool,
    /// For each begun kilobyte of the response's body.
    pub per_kilobyte: Option<Credits>,
    /// For each record of the response.
    pub per_record: Option<Credits>,
    /// For each event of the stream.
    pub per_event: Option<Credits>,
    /// The response header that says the price.
    pub from_header: Option<HeaderName>,
    /// What one request costs at most.
    pub max_credits: Option<Credits>,
}

/// Why parts of a formula do not go together. [`BadPrice::key`] is where to say so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadPrice {
    /// `from_header` beside a part that counts.
    #[error("the upstream says the price by `from_header`; take one of the two out")]
    BesideHeader(&'static str),
    /// A part of 0 credits.
    #[error("expected at least 1 credit; take the key out to charge nothing for it")]
    Zero(&'static str),
    /// `per_item` multiplies `credits`, and that is 0.
    #[error("`per_item` multiplies `credits`, which is 0 here; give `credits` a number or take this key out")]
    FreeItems,
    /// The price is always `credits`, so there is nothing to bound.
    #[error("there is nothing to bound: the price is always `credits`; take this key out")]
    NothingToBound,
    /// The bound is less than what every request costs.
    #[error("less than `credits` ({0}), which every request costs; raise it to at least that")]
    MaxBelowCredits(Credits),
    /// The header steers the exchange, and is needed as it is.
    #[error("the header {0} cannot state a price; it is removed from the response, and clients need it")]
    SteeringHeader(HeaderName),
}

impl BadPrice {
    /// The key of `proxy.yaml` that is to be mended.
    pub fn key(&self) -> &'static str {
        match self {
            Self::BesideHeader(key) | Self::Zero(key) => key,
            Self::FreeItems => "per_item",
            Self::NothingToBound | Self::MaxBelowCredits(_) => "max_credits",
            Self::SteeringHeader(_) => "from_header",
        }
    }
}

/// A valid formula. Its text says it in words, for `explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price(Form);

/// What is taken before a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hold {
    /// Credits to take at once.
    pub credits: Credits,
    /// How the price may differ in the end.
    pub rest: Rest,
}

/// How a price may differ from the credits held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// It cannot.
    Nothing,
    /// It may be less: what is not used is returned. It is never more, so law 1 holds to the credit.
    Returned,
    /// It may be less, or more: a stream draws the next credits before what they pay for goes out; any other response
    /// draws what is missing when its price is known, and so may exceed the limit by its own cost (law 1).
    Drawn,
}

/// What was seen of a response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Bytes of the body that went out, as they are on the wire: compressed, if it is.
    pub bytes: u64,
    /// Records or events, whatever the body holds.
    pub units: u64,
}

impl Price {
    /// Puts a formula together, or says what does not go together.
    pub fn new(form: Form) -> Result<Self, BadPrice> {
        let rates = [
            ("per_kilobyte", form.per_kilobyte),
            ("per_record", form.per_record),
            ("per_event", form.per_event),
            ("max_credits", form.max_credits),
        ];
        if let Some((key, _)) = rates.iter().find(|(_, rate)| *rate == Some(Credits(0))) {
            return Err(BadPrice::Zero(key));
        }
        if let Some(header) = &form.from_header {
            if STEERING.contains(&header.as_str()) {
                return Err(BadPrice::SteeringHeader(header.clone()));
            }
            let counts =
                |(key, rate): &&(&'static str, Option<Credits>)| *key != "max_credits" && rate.is_some();
            if let Some((key, _)) = rates.iter().find(counts) {
                return Err(BadPrice::BesideHeader(key));
            }
            if form.per_item {
                return Err(BadPrice::BesideHeader("per_item"));
            }
        }
        if form.per_item && form.credits == Credits(0) {
            return Err(BadPrice::FreeItems);
        }
        let price = Self(form);
        match price.0.max_credits {
            Some(_) if !price.0.per_item && !price.is_known_late() => Err(BadPrice::NothingToBound),
            Some(max) if max < price.0.credits => Err(BadPrice::MaxBelowCredits(price.0.credits)),
            _ => Ok(price),
        }
    }

    /// So many credits for each request, whatever it is.
    pub fn flat(credits: Credits) -> Self {
        Self(Form { credits: Credits(credits.0.min(MAX_CREDITS)), ..Form::default() })
    }

    /// The parts.
    pub fn form(&self) -> &Form {
        &self.0
    }

    /// Whether only the response tells the price.
    pub fn is_known_late(&self) -> bool {
        let Form { per_kilobyte, per_record, per_event, from_header, .. } = &self.0;
        per_kilobyte.is_some() || per_record.is_some() || per_event.is_some() || from_header.is_some()
    }

    /// Whether records or events are to be found in the body. Such a route asks its upstream for the whole of it,
    /// uncompressed: `Accept-Encoding`, `Range` and `If-Range` do not go with the request.
    pub fn reads_body(&self) -> bool {
        self.0.per_record.is_some() || self.0.per_event.is_some()
    }

    /// The response header that says the price; it does not go on to the client.
    pub fn header(&self) -> Option<&HeaderName> {
        self.0.from_header.as_ref()
    }

    /// Reads what the upstream says: one whole number. `None`, and so `credits`: the header is not there, stands
    /// several times, or says anything else.
    pub fn parse_header<'v>(values: impl IntoIterator<Item = &'v [u8]>) -> Option<Credits> {
        let mut values = values.into_iter();
        let (value, None) = (values.next()?, values.next()) else { return None };
        let text = std::str::from_utf8(value).ok()?.trim_matches([' ', '\t']);
        // `parse` alone would take a plus sign.
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        number.filter(|number| *number <= MAX_CREDITS).map(Credits)
    }

    /// What is taken before a request with so many items is sent: the price, if it is known; `max_credits`, if it is
    /// only known later; else what the request costs with one kilobyte and one record or event, and at least 1, so
    /// that a token with nothing left gets nothing.
    ///
    /// Where events are all that is counted in the response, the credits come one by one, also with `max_credits`: a
    /// stream does not keep credits from others that it may never use.
    pub fn hold(&self, items: u64) -> Hold {
        let form = &self.0;
        let base = self.base(items);
        if !self.is_known_late() {
            return Hold { credits: self.capped(base), rest: Rest::Nothing };
        }
        let only_events =
            form.per_event.is_some() && form.per_record.is_none() && form.per_kilobyte.is_none();
        if let (Some(max), false) = (form.max_credits, only_events) {
            return Hold { credits: max, rest: Rest::Returned };
        }
        let rate = |rate: Option<Credits>| rate.map_or(0, |rate| rate.0);
        let unit = rate(form.per_event).max(rate(form.per_record));
        let first = base.saturating_add(unit).saturating_add(rate(form.per_kilobyte)).max(1);
        Hold { credits: self.capped(first), rest: Rest::Drawn }
    }

    /// The formula for one response: of a request with so many items, with a body of this kind, and with the header's
    /// word if there is one.
    pub fn rates(&self, items: u64, kind: BodyKind, stated: Option<Credits>) -> Rates {
        let form = &self.0;
        let stated = stated.filter(|_| form.from_header.is_some());
        let per_unit = match kind {
            BodyKind::Events | BodyKind::Frames => form.per_event.or(form.per_record),
            BodyKind::Lines => form.per_record.or(form.per_event),
            BodyKind::Json | BodyKind::Opaque => form.per_record,
            BodyKind::Empty => None,
        };
        Rates {
            base: stated.map_or_else(|| self.base(items), |stated| stated.0),
            per_kilobyte: form.per_kilobyte.map_or(0, |rate| rate.0),
            per_unit: per_unit.map_or(0, |rate| rate.0),
            max: form.max_credits.map_or(MAX_CREDITS, |max| max.0),
        }
    }

    fn base(&self, items: u64) -> u64 {
        let items = if self.0.per_item { items.max(1) } else { 1 };
        self.0.credits.0.saturating_mul(items)
    }

    fn capped(&self, credits: u64) -> Credits {
        Credits(credits.min(self.0.max_credits.map_or(MAX_CREDITS, |max| max.0)))
    }
}

impl fmt::Display for Price {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = &self.0;
        match &form.from_header {
            Some(header) => write!(f, "what the response header {header} says, else {}", form.credits)?,
            None => form.credits.fmt(f)?,
        }
        if form.per_item {
            f.write_str(" for each item")?;
        }
        let rates = [("kilobyte", form.per_kilobyte), ("record", form.per_record), ("event", form.per_event)];
        for (what, rate) in rates {
            if let Some(rate) = rate {
                write!(f, " + {rate} for each {what}")?;
            }
        }
        form.max_credits.map_or(Ok(()), |max| write!(f, ", at most {max}"))
    }
}

/// The formula for one response, as plain numbers: small enough to be kept with each open stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    base: u64,
    per_kilobyte: u64,
    per_unit: u64,
    max: u64,
}

impl Rates {
    /// What it costs when so much was seen.
    pub fn of(&self, seen: Seen) -> Credits {
        let bytes = self.per_kilobyte.saturating_mul(seen.bytes.div_ceil(KILOBYTE));
        let units = self.per_unit.saturating_mul(seen.units);
        Credits(self.base.saturating_add(bytes).saturating_add(units).min(self.max))
    }

    /// How many units `credits` pay for in all, if no byte costs anything.
    pub(in crate::policy) fn units_within(&self, credits: Credits) -> u64 {
        if self.per_unit == 0 || credits.0 >= self.max {
            return u64::MAX;
        }
        credits.0.saturating_sub(self.base).checked_div(self.per_unit).unwrap_or(u64::MAX)
    }

    /// Whether records or events have a price.
    pub(in crate::policy) fn counts_units(&self) -> bool {
        self.per_unit > 0
    }

    /// Whether it cannot cost more than that.
    pub(in crate::policy) fn is_most(&self, credits: Credits) -> bool {
        credits.0 >= self.max
    }

    /// Whether each byte has its price.
    pub(in crate::policy) fn counts_bytes(&self) -> bool {
        self.per_kilobyte > 0
    }
}

#[cfg(test)]
mod tests;
