//! Keys of Tyk: session objects as its gateway API and its dashboard show them. One, a list, an object by key, or one a line.

use serde_json::Value;

use super::draft::{Draft, number, says, text};

/// What is not carried over where it says something.
const LEFT: [(&str, &str); 8] = [
    ("tags", "tags are not carried over"),
    ("meta_data", "meta_data is not carried over"),
    ("oauth_client_id", "OAuth is not carried over"),
    ("certificate", "its certificate is not carried over"),
    ("max_query_depth", "max_query_depth is not carried over"),
    ("throttle_retry_limit", "throttle_retry_limit is not carried over"),
    ("data_expires", "data_expires is not carried over"),
    ("session_lifetime", "session_lifetime is not carried over"),
];

/// Tokens of a dump.
pub(super) fn read(dump: &Value) -> anyhow::Result<Vec<Draft>> {
    let mut drafts = Vec::new();
    gather(dump, None, &mut drafts)?;
    if drafts.is_empty() {
        anyhow::bail!("there is no key of Tyk in it: no object with `rate`, `quota_max` or `access_rights`");
    }
    Ok(drafts)
}

fn gather(value: &Value, key: Option<&str>, drafts: &mut Vec<Draft>) -> anyhow::Result<()> {
    match value {
        Value::Array(entries) => entries.iter().try_for_each(|entry| gather(entry, None, drafts)),
        Value::String(_) => anyhow::bail!(
            "it lists only the names of keys; ask for each with GET /tyk/keys/NAME, and give what comes, one a line"
        ),
        Value::Object(members) => {
            let named =
                text(value, "key_id").or_else(|| text(value, "key")).or_else(|| key.map(str::to_owned));
            if is_session(value) {
                drafts.push(draft(value, named, drafts.len()));
                Ok(())
            } else if let Some(data) = value.get("data").filter(|data| is_session(data)) {
                drafts.push(draft(data, named, drafts.len()));
                Ok(())
            } else if let Some(keys) = value.get("keys").or_else(|| value.get("data")) {
                gather(keys, None, drafts)
            } else {
                let sessions = members.iter().filter(|(_, member)| member.is_object());
                sessions.into_iter().try_for_each(|(name, member)| gather(member, Some(name), drafts))
            }
        }
        _ => Ok(()),
    }
}

fn is_session(value: &Value) -> bool {
    ["rate", "quota_max", "access_rights"].iter().any(|name| value.get(name).is_some())
}

fn draft(session: &Value, key: Option<String>, number_of: usize) -> Draft {
    let alias = text(session, "alias");
    let mut draft = Draft {
        place: alias.clone().map_or_else(|| format!("key {}", number_of + 1), |alias| format!("key {alias}")),
        name: alias.unwrap_or_else(|| format!("Tyk key {}", number_of + 1)),
        key,
        number: number_of,
        ..Draft::default()
    };
    if draft.key.is_none() {
        draft
            .warn("the dump does not name the key itself; a repeated import knows it by its alias and place");
    }
    let (rate, per) = (number(session, "rate").unwrap_or(0.0), number(session, "per").unwrap_or(1.0));
    if rate > 0.0 {
        draft.limits.add(rate, if per > 0.0 { per } else { 1.0 }, "rate", &mut draft.warnings);
    }
    quota(session, &mut draft);
    if let Some(expires) = session.get("expires").and_then(Value::as_i64).filter(|second| *second > 0) {
        match jiff::Timestamp::from_second(expires) {
            Ok(at) => draft.set("expires_at", at.to_string()),
            Err(_) => draft.warn("its `expires` is no time; it never ends here"),
        }
    }
    if says(session, "is_inactive") {
        draft.set("status", "disabled");
    }
    let signs = says(session, "hmac_enabled") || says(session, "enable_http_signature_validation");
    draft.set("signed_requests", signs);
    if signs {
        draft.warn("requests are signed in another way here; make a secret with `token signing-secret`");
    }
    let made = text(session, "date_created").and_then(|text| text.parse::<jiff::Timestamp>().ok());
    if let Some(made) = made.filter(|made| made.as_second() > 0) {
        draft.set("created_at", made.to_string());
    }
    for (_, what) in LEFT.into_iter().filter(|(name, _)| says_more(session, name)) {
        draft.warn(what);
    }
    rights(session, &mut draft);
    draft
}

/// Whether a member says something; 0 and -1 stand for nothing.
fn says_more(session: &Value, name: &str) -> bool {
    says(session, name) && number(session, name).is_none_or(|number| number > 0.0)
}

fn quota(session: &Value, draft: &mut Draft) {
    let Some(most) = session.get("quota_max").and_then(Value::as_u64).filter(|most| *most > 0) else {
        return;
    };
    match number(session, "quota_renewal_rate").filter(|seconds| *seconds > 0.0) {
        Some(seconds) if seconds < 3600.0 => {
            // Shorter than an hour it is a limit of its own beside the rate, which there cannot be.
            #[expect(clippy::cast_precision_loss, reason = "a quota of an hour is small")]
            let hourly = (most as f64) * 3600.0 / seconds;
            draft.limits.add(hourly.ceil(), 3600.0, "quota_max", &mut draft.warnings);
            draft.warn(format!("quota_max: {most} in {seconds} s becomes credits an hour"));
        }
        #[expect(clippy::cast_precision_loss, reason = "more than 2^53 requests are no limit")]
        Some(seconds) => draft.limits.add(most as f64, seconds, "quota_max", &mut draft.warnings),
        None => draft.limits.set_credits(most, "none", "quota_max", &mut draft.warnings),
    }
}

fn rights(session: &Value, draft: &mut Draft) {
    if says(session, "apply_policies") || says(session, "apply_policy_id") {
        draft.warn("it takes limits from policies, which are not in the dump; set them with `token edit`");
    }
    let rights = session.get("access_rights").and_then(Value::as_object).into_iter().flatten();
    let mut names = Vec::new();
    for (id, right) in rights {
        let name = text(right, "api_name").unwrap_or_else(|| id.clone());
        if says(right, "allowed_urls") {
            draft.warn(format!("access to {name}: patterns in allowed_urls are not carried over"));
        }
        let own =
            right.get("limit").is_some_and(|limit| says_more(limit, "rate") || says_more(limit, "quota_max"));
        if own {
            draft.warn(format!("access to {name}: its own limit is not carried over"));
        }
        names.push(name);
    }
    if !names.is_empty() {
        draft.warn(format!("access to {} is not carried over; grant data sets instead", names.join(", ")));
    }
}
