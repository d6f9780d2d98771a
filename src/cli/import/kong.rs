//! A declarative configuration of Kong (`_format_version`), as `deck gateway dump` or `kong config db_export` writes it: a token
//! for each key of a consumer. Credentials, groups and plugins stand inside their consumer, or at the top with its name.

use serde_json::Value;

use super::draft::{Draft, list, number, says, text, texts};

/// Credentials that are no keys.
const OTHER_CREDENTIALS: [&str; 6] = [
    "basicauth_credentials",
    "hmacauth_credentials",
    "jwt_secrets",
    "oauth2_credentials",
    "mtls_auth_credentials",
    "ldap_auth_credentials",
];

/// The windows of `rate-limiting`, in seconds.
const WINDOWS: [(&str, f64); 6] = [
    ("second", 1.0),
    ("minute", 60.0),
    ("hour", 3600.0),
    ("day", 86_400.0),
    ("month", 2_592_000.0),
    ("year", 31_536_000.0),
];

/// Tokens of a dump, and what is to be told of consumers without one.
pub(super) fn read(dump: &Value) -> anyhow::Result<(Vec<Draft>, Vec<String>)> {
    if dump.get("_format_version").is_none() {
        anyhow::bail!("this is no declarative configuration of Kong: it has no `_format_version`");
    }
    let (mut drafts, mut warnings) = (Vec::new(), Vec::new());
    for (at, consumer) in list(dump, "consumers").enumerate() {
        let username = text(consumer, "username").or_else(|| text(consumer, "custom_id"));
        let Some(username) = username.or_else(|| text(consumer, "id")) else {
            warnings.push(format!("consumers[{at}]: has no name; it is left out"));
            continue;
        };
        let consumer = Consumer { dump, entry: consumer, username: &username };
        let keys: Vec<&Value> = consumer.of("keyauth_credentials").collect();
        if keys.is_empty() {
            warnings.push(format!("consumer {username}: has no key; no token is made"));
        }
        for (nth, key) in keys.into_iter().enumerate() {
            drafts.push(consumer.draft(key, nth));
        }
    }
    if says(dump, "consumer_groups") {
        warnings.push("consumer_groups: limits of groups are not carried over".to_owned());
    }
    Ok((drafts, warnings))
}

struct Consumer<'a> {
    dump: &'a Value,
    entry: &'a Value,
    username: &'a str,
}

impl<'a> Consumer<'a> {
    /// What is the consumer's: inside it, or at the top with its name.
    fn of(&self, name: &'static str) -> impl Iterator<Item = &'a Value> {
        let id = text(self.entry, "id");
        let username = self.username.to_owned();
        let is_ours = move |entry: &&Value| {
            let owner = entry.get("consumer");
            let named = owner.and_then(Value::as_str).map(str::to_owned);
            let named = named.or_else(|| text(owner?, "username")).or_else(|| text(owner?, "id"));
            named.is_some_and(|named| named == username || Some(&named) == id.as_ref())
        };
        list(self.entry, name).chain(list(self.dump, name).filter(is_ours))
    }

    fn draft(&self, credential: &Value, nth: usize) -> Draft {
        let custom = text(self.entry, "custom_id").filter(|custom| custom != self.username);
        let mut name = match custom {
            Some(custom) => format!("{} ({custom})", self.username),
            None => self.username.to_owned(),
        };
        if nth > 0 {
            name = format!("{name} #{}", nth + 1);
        }
        let mut draft = Draft {
            place: format!("consumer {}, key {}", self.username, nth + 1),
            name,
            key: text(credential, "key"),
            number: nth,
            ..Draft::default()
        };
        if says(credential, "ttl") {
            draft.warn(
                "the key's ttl counts from when it was made, which the dump does not say; set --expires-at",
            );
        }
        if says(self.entry, "tags") || says(credential, "tags") {
            draft.warn("tags are not carried over");
        }
        for other in OTHER_CREDENTIALS.into_iter().filter(|other| self.of(other).next().is_some()) {
            draft.warn(format!("{other} are not carried over"));
        }
        let groups: Vec<_> = self.of("acls").filter_map(|acl| text(acl, "group")).collect();
        let more = list(self.entry, "groups").filter_map(|group| text(group, "name"));
        let groups: Vec<_> = groups.into_iter().chain(more).collect();
        if !groups.is_empty() {
            draft.warn(format!("groups {} are not carried over; grant data sets instead", groups.join(", ")));
        }
        for plugin in self.of("plugins") {
            if plugin.get("enabled") != Some(&Value::Bool(false)) {
                apply(plugin, &mut draft);
            }
        }
        draft
    }
}

/// Applies a plugin of a consumer.
fn apply(plugin: &Value, draft: &mut Draft) {
    let name = text(plugin, "name").unwrap_or_default();
    let config = plugin.get("config").unwrap_or(&Value::Null);
    if says(plugin, "route") || says(plugin, "service") {
        draft.warn(format!("plugin {name}: is of one route or service only, and not carried over"));
        return;
    }
    match name.as_str() {
        "rate-limiting" => {
            if !counts_consumer(config, "limit_by", &name, draft) {
                return;
            }
            for (window, seconds) in WINDOWS {
                if let Some(count) = number(config, window) {
                    draft.limits.add(count, seconds, &format!("{name}.{window}"), &mut draft.warnings);
                }
            }
        }
        "rate-limiting-advanced" => {
            if !counts_consumer(config, "identifier", &name, draft) {
                return;
            }
            let limits: Vec<_> = list(config, "limit").map(Value::as_f64).collect();
            let windows: Vec<_> = list(config, "window_size").map(Value::as_f64).collect();
            for (count, seconds) in limits.into_iter().zip(windows) {
                if let (Some(count), Some(seconds)) = (count, seconds) {
                    draft.limits.add(count, seconds, &name, &mut draft.warnings);
                }
            }
        }
        "ip-restriction" => {
            let allowed = texts(config, if says(config, "allow") { "allow" } else { "whitelist" });
            if !allowed.is_empty() {
                draft.set("allowed_domains", allowed);
            }
            if says(config, "deny") || says(config, "blacklist") {
                draft.warn("ip-restriction: addresses to deny are not carried over");
            }
        }
        "key-auth" | "acl" => {}
        _ => draft.warn(format!("plugin {name} is not carried over")),
    }
}

/// Whether a limit counts the consumer's requests, and not those of an address or of something else.
fn counts_consumer(config: &Value, field: &str, plugin: &str, draft: &mut Draft) -> bool {
    match text(config, field).as_deref() {
        None | Some("consumer" | "credential") => true,
        Some(other) => {
            draft.warn(format!("{plugin}: it counts by {other}, not by consumer, and is not carried over"));
            false
        }
    }
}
