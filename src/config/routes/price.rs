//! `credits` and its kin: what a route costs. What the parts mean is [`crate::policy::cost::Price`]'s.

use http::HeaderName;

use crate::config::reader::{Fields, Item, Keys, Read};
use crate::policy::Credits;
use crate::policy::cost::{Form, MAX_CREDITS, Price};
use crate::policy::route::{Items, Methods, PathTemplate};

const ITEMS: Keys = Keys { known: &["param", "segment"], later: &[] };

const AN_ITEM: &str = "a mapping such as `param: symbols`, or `segment: NAME` of the path";

/// Reads the price, and where items stand.
pub(super) fn read(
    fields: &Fields<'_>,
    path: Read<&PathTemplate>,
    methods: Read<&Methods>,
) -> Read<(Price, Option<Items>)> {
    let rate = |key| fields.optional(key, |item| item.integer(1..=MAX_CREDITS).map(Credits));
    let credits = fields.or("credits", Credits(1), |item| item.integer(0..=MAX_CREDITS).map(Credits));
    let items = fields.optional("per_item", |item| read_items(item, path));
    let [per_kilobyte, per_record, per_event, max_credits] =
        ["per_kilobyte", "per_record", "per_event", "max_credits"].map(rate);
    let from_header = fields.optional("from_header", |item| {
        item.parse("the name of a response header such as X-Credits", |text| {
            HeaderName::from_bytes(text.as_bytes()).ok()
        })
    });
    let items = items?;
    let form = Form {
        credits: credits?,
        per_item: items.is_some(),
        per_kilobyte: per_kilobyte?,
        per_record: per_record?,
        per_event: per_event?,
        from_header: from_header?,
        max_credits: max_credits?,
    };
    let price = Price::new(form).map_err(|why| match fields.get(why.key()) {
        Some(item) => item.refuse(why.to_string()),
        None => fields.refuse_missing(why.key(), &why.to_string()),
    })?;
    check_bodies(fields, &price, methods?)?;
    Ok((price, items))
}

/// What is counted in a body needs a method whose response has one.
fn check_bodies(fields: &Fields<'_>, price: &Price, methods: &Methods) -> Read<()> {
    let form = price.form();
    let counted =
        [("per_kilobyte", form.per_kilobyte), ("per_record", form.per_record), ("per_event", form.per_event)];
    let counted = counted.iter().find(|(_, rate)| rate.is_some());
    match counted.and_then(|(key, _)| fields.get(key)) {
        Some(item) if methods.allow() == "HEAD" => {
            Err(item
                .refuse("there is nothing to count: a response to HEAD, the only method here, has no body"))
        }
        _ => Ok(()),
    }
}

fn read_items(item: &Item<'_>, path: Read<&PathTemplate>) -> Read<Items> {
    let fields = item.fields(&ITEMS, AN_ITEM)?;
    let param = fields.optional("param", |item| {
        item.parse("the name of a query parameter other than `token`", |text| {
            let fine = !text.is_empty() && text != "token" && text.bytes().all(|b| b.is_ascii_graphic());
            fine.then(|| Items::Query(text.to_owned()))
        })
    });
    let segment = fields.optional("segment", |item| {
        let name = item.text("the name of a segment of the path")?;
        let path = path?;
        Items::segment(&name, path).ok_or_else(|| {
            item.refuse(format!(
                "the path {path} has no segment of this name; expected one of its names, without braces"
            ))
        })
    });
    match (param?, segment?) {
        (Some(items), None) | (None, Some(items)) => Ok(items),
        (None, None) => Err(fields.refuse_missing("param", &format!("missing; expected {AN_ITEM}"))),
        (Some(_), Some(_)) => {
            Err(item.refuse("items stand in one place: expected either `param` or `segment`"))
        }
    }
}
