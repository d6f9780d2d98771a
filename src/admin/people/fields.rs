//! What clients send of a member.

use serde_json::Value;

use crate::admin::fields::{Field, Object, Problems};
use crate::admin::problem::Problem;
use crate::policy::token::contains_token;
use crate::store::people::Role;

/// The longest name, in characters.
const MAX_NAME: usize = 200;
const KNOWN: [&str; 2] = ["name", "role"];
const A_NAME: &str = "a text, what the member signs in with";
const A_ROLE: &str = "`admin` or `viewer`";

/// Name and role of a new member: both must be there.
pub(super) fn read_new(body: &Value) -> Result<(String, Role), Problem> {
    let mut problems = Problems::default();
    let object = Field::root(body).object(&KNOWN, &mut problems);
    let both = object.and_then(|object| {
        let name = object.required("name", A_NAME, &mut problems);
        let name = name.and_then(|field| read_name(&field, &mut problems));
        let role = object.required("role", A_ROLE, &mut problems);
        let role = role.and_then(|field| field.choice(A_ROLE, Role::parse, &mut problems));
        name.zip(role)
    });
    match both {
        Some(both) if problems.count() == 0 => Ok(both),
        _ => Err(Problem::fields(problems.into_errors())),
    }
}

/// A member's new name and role; what is absent stays.
pub(super) fn read_edit(body: &Value) -> Result<(Option<String>, Option<Role>), Problem> {
    let mut problems = Problems::default();
    let object = Field::root(body).object(&KNOWN, &mut problems);
    let field = |name: &str| object.as_ref().and_then(|object: &Object<'_>| object.field(name));
    let name = field("name").and_then(|field| read_name(&field, &mut problems));
    let role = field("role").and_then(|field| field.choice(A_ROLE, Role::parse, &mut problems));
    if problems.count() > 0 { Err(Problem::fields(problems.into_errors())) } else { Ok((name, role)) }
}

fn read_name(field: &Field<'_>, problems: &mut Problems) -> Option<String> {
    let text = field.text(A_NAME, problems)?.trim();
    let why = if text.is_empty() {
        "is empty".to_owned()
    } else if text.chars().count() > MAX_NAME {
        format!("is longer than {MAX_NAME} characters")
    } else if text.chars().any(char::is_control) {
        "holds a control character".to_owned()
    } else if contains_token(text.as_bytes()) {
        "holds a token; a name is shown and logged".to_owned()
    } else {
        return Some(text.to_owned());
    };
    problems.add(field.pointer(), why);
    None
}
