//! Consumers of APISIX: what `GET /apisix/admin/consumers` answers, or an `apisix.yaml`. A token for each key of a consumer; keys that
//! are credentials of their own may be in the same list.

use std::collections::BTreeMap;

use serde_json::Value;

use super::draft::{Draft, list, number, says, text, texts};

/// Plugins that hold credentials other than keys.
const OTHER_CREDENTIALS: [&str; 6] =
    ["basic-auth", "jwt-auth", "hmac-auth", "wolf-rbac", "ldap-auth", "jwe-decrypt"];

/// A consumer, and its keys.
#[derive(Default)]
struct Consumer<'a> {
    entry: Option<&'a Value>,
    /// Objects that hold plugins with credentials.
    credentials: Vec<&'a Value>,
}

/// Tokens of a dump, and what is to be told of consumers without one.
pub(super) fn read(dump: &Value) -> anyhow::Result<(Vec<Draft>, Vec<String>)> {
    let mut consumers: BTreeMap<String, Consumer<'_>> = BTreeMap::new();
    for entry in entries(dump)? {
        let value = entry.get("value").unwrap_or(entry);
        let path = text(entry, "key").or_else(|| text(value, "id")).unwrap_or_default();
        if let Some((owner, _)) = path.split_once("/credentials/") {
            let owner = owner.rsplit('/').next().unwrap_or_default();
            consumers.entry(owner.to_owned()).or_default().credentials.push(value);
        } else if let Some(name) = text(value, "username") {
            let consumer = consumers.entry(name).or_default();
            consumer.entry = Some(value);
            consumer.credentials.insert(0, value);
        }
    }
    if consumers.is_empty() {
        anyhow::bail!("there is no consumer of APISIX in it: no entry with a `username`");
    }
    let (mut drafts, mut warnings) = (Vec::new(), Vec::new());
    for (name, consumer) in consumers {
        let keys: Vec<&Value> = consumer.credentials.iter().filter_map(|it| plugin(it, "key-auth")).collect();
        if keys.is_empty() {
            warnings.push(format!("consumer {name}: has no key; no token is made"));
        }
        for (nth, key) in keys.into_iter().enumerate() {
            drafts.push(draft(&name, &consumer, key, nth));
        }
    }
    Ok((drafts, warnings))
}

/// The entries of a list in one of the forms that versions of APISIX give it.
fn entries(dump: &Value) -> anyhow::Result<Vec<&Value>> {
    let within = |value: &'_ Value| value.is_array();
    let known = [
        Some(dump),
        dump.get("consumers"),
        dump.get("list"),
        dump.get("node").and_then(|node| node.get("nodes")),
    ];
    if let Some(list) = known.into_iter().flatten().find(|value| within(value)) {
        return Ok(list.as_array().into_iter().flatten().collect());
    }
    if says(dump, "username") || dump.get("value").is_some_and(|value| says(value, "username")) {
        return Ok(vec![dump]);
    }
    anyhow::bail!("this is no list of consumers of APISIX: it has no `list`, `consumers` or `username`")
}

/// A plugin that is switched on.
fn plugin<'a>(entry: &'a Value, name: &str) -> Option<&'a Value> {
    let plugin = entry.get("plugins")?.get(name)?;
    let off = plugin.get("_meta").is_some_and(|meta| says(meta, "disable")) || says(plugin, "disable");
    (!off).then_some(plugin)
}

fn draft(name: &str, consumer: &Consumer<'_>, key: &Value, nth: usize) -> Draft {
    let mut draft = Draft {
        place: format!("consumer {name}, key {}", nth + 1),
        name: if nth == 0 { name.to_owned() } else { format!("{name} #{}", nth + 1) },
        key: text(key, "key"),
        number: nth,
        ..Draft::default()
    };
    // The key itself lies elsewhere, or is encrypted; which it is, the dump does not say.
    if draft.key.as_ref().is_some_and(|key| key.starts_with('$')) {
        draft.warn("its key is a reference to a secret; the mapping has the reference's digest");
    }
    let Some(entry) = consumer.entry else {
        draft.warn("the consumer itself is not in the dump; its limits are not carried over");
        return draft;
    };
    if let Some(made) = entry.get("create_time").and_then(Value::as_i64)
        && let Ok(made) = jiff::Timestamp::from_second(made)
    {
        draft.set("created_at", made.to_string());
    }
    for (field, what) in [
        ("labels", "labels are not carried over"),
        ("desc", "desc is not carried over"),
        ("group_id", "limits of its consumer group are not carried over"),
    ] {
        if says(entry, field) {
            draft.warn(what);
        }
    }
    let plugins = entry.get("plugins").and_then(Value::as_object).into_iter().flatten();
    for (name, _) in plugins {
        if let Some(config) = plugin(entry, name) {
            apply(name, config, &mut draft);
        }
    }
    draft
}

/// Applies a plugin of a consumer.
fn apply(name: &str, config: &Value, draft: &mut Draft) {
    match name {
        "key-auth" => {}
        "limit-req" => match (number(config, "rate"), number(config, "burst")) {
            (Some(rate), burst) if rate > 0.0 => {
                // A request beyond the rate is held up there, and passes at once here, as long as the burst lasts.
                let count = rate.max(1.0) + burst.unwrap_or(0.0);
                draft.limits.add(rate, 1.0, name, &mut draft.warnings);
                draft.limits.widen(count);
            }
            _ => draft.warn("limit-req: its rate is no number; it is not carried over"),
        },
        "limit-count" => match (number(config, "count"), number(config, "time_window")) {
            (Some(count), Some(seconds)) => draft.limits.add(count, seconds, name, &mut draft.warnings),
            _ => draft.warn("limit-count: its count or time_window is no number; it is not carried over"),
        },
        "ip-restriction" | "referer-restriction" => {
            let allowed = texts(config, "whitelist");
            if !allowed.is_empty() {
                let before = draft.fields.get("allowed_domains").and_then(Value::as_array).cloned();
                if before.is_some() {
                    draft.warn("ip-restriction and referer-restriction: here one of both is enough");
                }
                let all: Vec<Value> = before
                    .unwrap_or_default()
                    .into_iter()
                    .chain(allowed.into_iter().map(Value::from))
                    .collect();
                draft.set("allowed_domains", all);
            }
            if says(config, "blacklist") {
                draft.warn(format!("{name}: what is denied is not carried over"));
            }
            if says(config, "bypass_missing") {
                draft.warn(format!("{name}: requests without a Referer are refused here"));
            }
        }
        "consumer-restriction" => {
            let lists = ["whitelist", "blacklist", "allowed_by_methods"];
            let named: Vec<_> =
                lists.into_iter().filter(|list_of| list(config, list_of).next().is_some()).collect();
            let kind = text(config, "type").unwrap_or_else(|| "consumer_name".to_owned());
            draft.warn(format!(
                "consumer-restriction ({} of {kind}) is not carried over; grant data sets instead",
                named.join(", ")
            ));
        }
        other if OTHER_CREDENTIALS.contains(&other) => {
            draft.warn(format!("credentials of {other} are not carried over"));
        }
        other => draft.warn(format!("plugin {other} is not carried over")),
    }
}
