//! A YAML text as a tree in which every key and value knows its place.
//!
//! Built from the parser's events, not by its ready-made loader: that one stops at the first key that stands
//! twice, expands aliases and hides where tags and anchors were. Here all of them are mistakes with a place, and
//! the tree goes on. Knows YAML and nothing of `proxy.yaml`; go on to [`super::reader`] for that.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};

/// Where something starts: line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value and where it starts.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) data: Data,
}

/// What a value is.
#[derive(Debug)]
pub(super) enum Data {
    Scalar {
        text: String,
        /// It stands in quotes or in a block, so it is text whatever it looks like.
        quoted: bool,
    },
    List(Vec<Node>),
    Mapping(Vec<Entry>),
    /// Something that was refused already; whoever reads on is to be silent about it.
    Refused,
}

/// A key with its value.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) key_place: Place,
    pub(super) value: Node,
}

/// A mistake in the YAML itself.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) place: Place,
    pub(super) key: String,
    pub(super) message: String,
}

/// Deeper nesting than any configuration needs; keeps hostile input off the stack.
const MAX_DEPTH: usize = 32;

/// Reads one YAML document. The tree is `None` where there is no document to go on with; there are faults then.
pub(super) fn parse(text: &str) -> (Option<Node>, Vec<Fault>) {
    let mut builder =
        Builder { end: end_of(text), stack: Vec::new(), root: None, documents: 0, faults: Vec::new() };
    let mut parser = Parser::new(StrInput::new(text));
    let whole = loop {
        match parser.next_event() {
            None | Some(Ok((Event::StreamEnd, _))) => break true,
            Some(Ok((event, span))) => {
                if !builder.take(event, &span) {
                    break false;
                }
            }
            Some(Err(error)) => {
                let place = builder.place(error.marker().line(), error.marker().col());
                builder.fault_at(place, String::new(), syntax_message(error.info()));
                break false;
            }
        }
    };
    if whole && builder.root.is_none() && builder.faults.is_empty() {
        let message = "the file is empty; expected at least `listeners`, `upstreams` and `routes`";
        builder.fault_at(Place { line: 1, column: 1 }, String::new(), message.to_owned());
    }
    (builder.root.filter(|_| whole), builder.faults)
}

fn syntax_message(info: &str) -> String {
    let unquoted = ["block mapping", "flow mapping", "flow sequence", "a node", "mapping values"];
    let hint = if unquoted.iter().any(|part| info.contains(part)) {
        "; a value that has `: `, ` #`, `{` or `[` in it needs quotes"
    } else {
        ""
    };
    format!("this is not YAML: {info}{hint}")
}

/// Adds one step to a key's full name. A key that is not a plain word is quoted, so a message stays one line.
pub(super) fn join_key(parent: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
    let key = if plain { Cow::Borrowed(key) } else { Cow::Owned(quote(key)) };
    if parent.is_empty() { key.into_owned() } else { format!("{parent}.{key}") }
}

/// A text as messages show it: on one line, in quotes, not too long.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 80;
    let mut shown: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    format!("\"{shown}\"")
}

/// A list or a mapping that has begun and not ended.
struct Open {
    place: Place,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Node>),
    Mapping { entries: Vec<Entry>, key: Option<Key> },
}

/// A key whose value is still to come.
struct Key {
    text: String,
    place: Place,
    /// It was refused; its value is left out without another word.
    refused: bool,
}

struct Builder {
    /// One past the last character.
    end: Place,
    stack: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    faults: Vec<Fault>,
}

impl Builder {
    /// Takes one event in; `false`: there is no use in going on.
    fn take(&mut self, event: Event<'_>, span: &Span) -> bool {
        let place = self.place(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.fault(place, "a second document starts here; expected one document in the file");
                    return false;
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let fine = self.check_extras(place, anchor, tag.as_deref());
                let quoted = style != ScalarStyle::Plain;
                let data =
                    if fine { Data::Scalar { text: text.into_owned(), quoted } } else { Data::Refused };
                self.close(Node { place, data });
            }
            Event::Alias(_) => {
                if !self.at_refused_key() {
                    self.fault(place, "aliases (`*name`) are not supported; write the value out");
                }
                self.close(Node { place, data: Data::Refused });
            }
            Event::SequenceStart(anchor, tag) => {
                return self.open(place, OpenKind::List(Vec::new()), anchor, tag.as_deref());
            }
            Event::MappingStart(anchor, tag) => {
                let kind = OpenKind::Mapping { entries: Vec::new(), key: None };
                return self.open(place, kind, anchor, tag.as_deref());
            }
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.stack.pop() {
                    let data = match open.kind {
                        OpenKind::List(items) => Data::List(items),
                        OpenKind::Mapping { entries, .. } => Data::Mapping(entries),
                    };
                    self.close(Node { place: open.place, data });
                }
            }
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
        }
        true
    }

    fn open(&mut self, place: Place, kind: OpenKind, anchor: usize, tag: Option<&Tag>) -> bool {
        self.check_extras(place, anchor, tag);
        self.stack.push(Open { place, kind });
        if self.stack.len() <= MAX_DEPTH {
            return true;
        }
        let message = format!("nested more than {MAX_DEPTH} levels deep");
        self.fault_at(place, String::new(), message);
        false
    }

    /// A value is complete: it goes where it belongs.
    fn close(&mut self, node: Node) {
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.kind {
            OpenKind::List(items) => items.push(node),
            OpenKind::Mapping { entries, key } => match key.take() {
                None => {
                    let key = self.start_key(node);
                    if let Some(Open { kind: OpenKind::Mapping { key: slot, .. }, .. }) =
                        self.stack.last_mut()
                    {
                        *slot = Some(key);
                    }
                }
                Some(key) if key.refused => {}
                Some(key) => entries.push(Entry { key: key.text, key_place: key.place, value: node }),
            },
        }
    }

    fn start_key(&mut self, node: Node) -> Key {
        let Data::Scalar { text, .. } = node.data else {
            if !matches!(node.data, Data::Refused) {
                self.fault(node.place, "a key must be plain text, not a list or a mapping");
            }
            return Key { text: String::new(), place: node.place, refused: true };
        };
        let first = self.stack.last().and_then(|open| match &open.kind {
            OpenKind::Mapping { entries, .. } => entries.iter().find(|entry| entry.key == text),
            OpenKind::List(_) => None,
        });
        let message = match first {
            Some(first) => {
                Some(format!("this key stands twice; it was set on line {} already", first.key_place.line))
            }
            None if text == "<<" => Some("merge keys are not supported; write the keys out".to_owned()),
            None => None,
        };
        let refused = message.is_some();
        if let Some(message) = message {
            self.fault_at(node.place, join_key(&self.path(), &text), message);
        }
        Key { text, place: node.place, refused }
    }

    fn check_extras(&mut self, place: Place, anchor: usize, tag: Option<&Tag>) -> bool {
        if anchor > 0 {
            self.fault(place, "anchors (`&name`) are not supported; write the value out where it is needed");
        }
        if tag.is_some() {
            self.fault(place, "tags (`!name`) are not supported; put quotes around a value to make it text");
        }
        anchor == 0 && tag.is_none()
    }

    fn at_refused_key(&self) -> bool {
        matches!(
            self.stack.last(),
            Some(Open { kind: OpenKind::Mapping { key: Some(Key { refused: true, .. }), .. }, .. })
        )
    }

    fn fault(&mut self, place: Place, message: &str) {
        self.fault_at(place, self.path(), message.to_owned());
    }

    fn fault_at(&mut self, place: Place, key: String, message: String) {
        self.faults.push(Fault { place, key, message });
    }

    /// The full name of what is being read.
    fn path(&self) -> String {
        self.stack.iter().fold(String::new(), |path, open| match &open.kind {
            OpenKind::List(items) => format!("{path}[{}]", items.len()),
            OpenKind::Mapping { key: Some(key), .. } => join_key(&path, &key.text),
            OpenKind::Mapping { key: None, .. } => path,
        })
    }

    /// A place within the text: the parser tells the end of the text as a line of its own.
    fn place(&self, line: usize, column: usize) -> Place {
        Place { line: line.max(1), column: column + 1 }.min(self.end)
    }
}

fn end_of(text: &str) -> Place {
    // A carriage return alone ends a line too (YAML 1.2.2, 5.4).
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let last = text.lines().last().unwrap_or_default();
    Place { line: text.lines().count().max(1), column: last.chars().count() + 1 }
}
