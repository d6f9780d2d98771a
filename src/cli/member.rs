//! `tollgate member`: who may use the console.

use std::fmt;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::client::{Call, Client};
use super::token::plain;
use super::{Global, Misuse, Output, table};

#[derive(Debug, Subcommand)]
pub(super) enum MemberCommand {
    /// List the members, oldest first
    List,
    /// Invite somebody, and print the link that makes them a member: only this once
    Invite {
        /// What they will sign in with: a name or an address
        name: String,
        /// What they may do
        #[arg(long, default_value = "viewer")]
        role: Role,
    },
    /// Change a member's name or role
    Edit {
        /// The member's id
        #[arg(value_parser = parse_id)]
        id: Id,
        /// What they sign in with
        #[arg(long)]
        name: Option<String>,
        /// What they may do
        #[arg(long)]
        role: Option<Role>,
        /// Only if this is the stored version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Print a new link for a member; their sessions end and their passphrase is good no more
    Link {
        /// The member's id
        #[arg(value_parser = parse_id)]
        id: Id,
        /// Only if this is the stored version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
    /// Remove a member, and end their sessions
    Remove {
        /// The member's id
        #[arg(value_parser = parse_id)]
        id: Id,
        /// Only if this is the stored version
        #[arg(long, value_name = "N")]
        if_version: Option<u64>,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Role {
    /// May do everything
    Admin,
    /// Sees everything but secrets, changes nothing
    Viewer,
}

impl Role {
    fn to_json(self) -> Value {
        match self {
            Self::Admin => json!("admin"),
            Self::Viewer => json!("viewer"),
        }
    }
}

/// A member's id: `mem_` and the 26 characters of a ULID.
#[derive(Debug, Clone)]
pub(super) struct Id(ulid::Ulid);

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mem_{}", self.0)
    }
}

/// Reads a member's id. Somebody may have pasted a secret instead, so the text is not repeated.
fn parse_id(text: &str) -> Result<Id, &'static str> {
    let ulid = text.strip_prefix("mem_").and_then(|ulid| ulid::Ulid::from_string(ulid).ok());
    ulid.map(Id).ok_or("not a member's id (mem_ and 26 characters; `tollgate member list` shows them)")
}

/// Runs one of the commands on members.
pub(super) fn run(global: &Global, command: MemberCommand) -> anyhow::Result<Output> {
    match command {
        MemberCommand::List => {
            let answer = Client::new(global)?.call("GET", "/v1/members", &Call::default())?;
            if global.json { Output::json(&answer) } else { Ok(Output::text(list(&answer))) }
        }
        MemberCommand::Invite { name, role } => {
            let body = json!({"name": name, "role": role.to_json()});
            let client = Client::new(global)?;
            let member = client.call("POST", "/v1/members", &Call::with_body(&body))?;
            link(global, &client, &member)
        }
        MemberCommand::Edit { id, name, role, if_version } => {
            let mut body = serde_json::Map::new();
            body.extend(name.map(|name| ("name".to_owned(), json!(name))));
            body.extend(role.map(|role| ("role".to_owned(), role.to_json())));
            if body.is_empty() {
                return Err(Misuse("nothing to change: give --name or --role".to_owned()).into());
            }
            let body = Value::Object(body);
            let call = Call { if_version, ..Call::with_body(&body) };
            let member = Client::new(global)?.call("PATCH", &path(&id), &call)?;
            if global.json { Output::json(&member) } else { Ok(Output::text(show(&member))) }
        }
        MemberCommand::Link { id, if_version } => {
            let client = Client::new(global)?;
            let call = Call { if_version, ..Call::default() };
            link(global, &client, &client.call("POST", &format!("{}/invite", path(&id)), &call)?)
        }
        MemberCommand::Remove { id, if_version } => {
            let call = Call { if_version, ..Call::default() };
            let member = Client::new(global)?.call("DELETE", &path(&id), &call)?;
            if global.json {
                return Output::json(&member);
            }
            Ok(Output::text(format!("{} ({id}) is removed\n", text(&member, "name"))))
        }
    }
}

fn path(id: &Id) -> String {
    format!("/v1/members/{id}")
}

fn text(member: &Value, name: &str) -> String {
    member.get(name).map(plain).unwrap_or_default()
}

/// The whole link, alone on the standard output, so that it can be piped to where it is needed.
fn link(global: &Global, client: &Client, member: &Value) -> anyhow::Result<Output> {
    if global.json {
        return Output::json(member);
    }
    let invitation = member.get("invitation").unwrap_or(&Value::Null);
    let mut output = Output::text(client.url(&text(invitation, "path")) + "\n");
    output.notes.push(format!(
        "note: {} ({}) takes this link up once, until {}; nobody can show it again",
        text(member, "name"),
        text(member, "id"),
        text(invitation, "until")
    ));
    Ok(output)
}

fn show(member: &Value) -> String {
    let until = member.get("invited_until").filter(|until| !until.is_null()).map(plain);
    let lines = ["id", "name", "role", "status"].map(|name| (name, text(member, name)));
    let until = until.map(|until| ("invited until", until));
    let rest = ["created_at", "version"].map(|name| (name, text(member, name)));
    table::pairs(lines.into_iter().chain(until).chain(rest))
}

fn list(answer: &Value) -> String {
    let members = answer.get("members").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    if members.is_empty() {
        return "There are no members yet; `tollgate member invite NAME --role admin` makes a link for one.\n"
            .to_owned();
    }
    let lines = members
        .iter()
        .map(|member| ["id", "name", "role", "status", "created_at"].map(|name| text(member, name)));
    table::rows(["ID", "NAME", "ROLE", "STATUS", "CREATED AT"], lines)
}
