//! One data set: its schema and its records in memory, ordered by key, subkey, date and id.
//!
//! It must not know HTTP or where records come from. Reading with filters is `select`'s work; the shelf of all data
//! sets is `catalog`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// A record: a JSON object whose fields keep the order they were written in.
pub(crate) type Record = Map<String, Value>;

/// Names of the fields that place a record. Only `key` is needed in every record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schema {
    pub(crate) key: String,
    pub(crate) subkey: Option<String>,
    /// The field that `from`, `to` and `sort` look at; `YYYY-MM-DD`.
    pub(crate) date: Option<String>,
    /// Tells records apart that share key, subkey and date.
    pub(crate) id: Option<String>,
}

impl Schema {
    pub(crate) fn new(key: &str, subkey: Option<&str>, date: Option<&str>, id: Option<&str>) -> Self {
        let own = |name: Option<&str>| name.map(str::to_owned);
        Self { key: key.to_owned(), subkey: own(subkey), date: own(date), id: own(id) }
    }

    /// The fields a `PATCH` may not change, since they are the record's place.
    fn placing(&self) -> impl Iterator<Item = &String> {
        [Some(&self.key), self.subkey.as_ref(), self.date.as_ref(), self.id.as_ref()].into_iter().flatten()
    }
}

/// Why a record cannot be stored. `at` counts from zero in the array that was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("record {at} is not a JSON object")]
    NotAnObject { at: usize },
    #[error("record {at} lacks `{field}`, the key of this data set")]
    NoKey { at: usize, field: String },
    #[error("`{field}` of record {at} must be a text, a number or a boolean")]
    BadPlace { at: usize, field: String },
    #[error("record {at} says {has} in `{field}`, the path says {path}")]
    OtherPlace { at: usize, field: String, has: String, path: String },
    #[error("`{field}` places the record and cannot be changed; delete and write it anew")]
    Moved { field: String },
}

/// Where a record stands below its key: subkey, date, id; each folded, empty if the schema or record has none.
type Place = [String; 3];

/// Folds text so that keys compare without regard to case.
fn fold(text: &str) -> String {
    text.to_lowercase()
}

/// The text that stands for a placing value, `None` if it cannot place a record.
pub(crate) fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// A schema and the records that follow it.
#[derive(Clone, Debug)]
pub(crate) struct Dataset {
    pub(crate) schema: Schema,
    /// Built-in sets (workspace `CORE`) are not written to.
    pub(crate) read_only: bool,
    groups: BTreeMap<String, BTreeMap<Place, Record>>,
}

impl Dataset {
    pub(crate) fn new(schema: Schema) -> Self {
        Self { schema, read_only: false, groups: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.groups.values().map(BTreeMap::len).sum()
    }

    /// Every record, by key, then subkey, date and id.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Record> {
        self.groups.values().flat_map(BTreeMap::values)
    }

    /// The records under a key, and under a subkey if one is given; in order of date.
    pub(crate) fn under<'a>(&'a self, key: &str, subkey: Option<&str>) -> impl Iterator<Item = &'a Record> {
        let subkey = subkey.map(fold);
        let group = self.groups.get(&fold(key)).into_iter().flatten();
        group
            .filter(move |(place, _)| subkey.as_ref().is_none_or(|wanted| place.first() == Some(wanted)))
            .map(|(_, record)| record)
    }

    /// Writes records, each replacing the one in its place. All or nothing.
    pub(crate) fn upsert(&mut self, records: Vec<Record>) -> Result<usize, RecordError> {
        let placed = records
            .into_iter()
            .enumerate()
            .map(|(at, record)| Ok((self.place(at, &record)?, record)))
            .collect::<Result<Vec<_>, RecordError>>()?;
        let count = placed.len();
        for ((key, place), record) in placed {
            self.groups.entry(key).or_default().insert(place, record);
        }
        Ok(count)
    }

    /// Replaces what stands under a key (and subkey) with these records; they take the key from the path if they lack it.
    pub(crate) fn replace(
        &mut self,
        key: &str,
        subkey: Option<&str>,
        mut records: Vec<Record>,
    ) -> Result<usize, RecordError> {
        for (at, record) in records.iter_mut().enumerate() {
            settle(record, at, &self.schema.key, key)?;
            if let (Some(field), Some(subkey)) = (&self.schema.subkey, subkey) {
                settle(record, at, field, subkey)?;
            }
            self.place(at, record)?;
        }
        self.remove(key, subkey, |_| true);
        self.upsert(records)
    }

    /// Merges `change` into every record under a key (and subkey); a `null` removes the field. Answers how many.
    pub(crate) fn patch(
        &mut self,
        key: &str,
        subkey: Option<&str>,
        change: &Record,
    ) -> Result<usize, RecordError> {
        let subkey = subkey.map(fold);
        let Some(group) = self.groups.get_mut(&fold(key)) else { return Ok(0) };
        let mut touched: Vec<&mut Record> = group
            .iter_mut()
            .filter(|(place, _)| subkey.as_ref().is_none_or(|wanted| place.first() == Some(wanted)))
            .map(|(_, record)| record)
            .collect();
        for field in self.schema.placing() {
            let Some(wanted) = change.get(field) else { continue };
            if touched.iter().any(|record| record.get(field) != Some(wanted)) {
                return Err(RecordError::Moved { field: field.clone() });
            }
        }
        for record in &mut touched {
            for (field, value) in change {
                if value.is_null() {
                    record.shift_remove(field);
                } else {
                    record.insert(field.clone(), value.clone());
                }
            }
        }
        Ok(touched.len())
    }

    /// Removes the records under a key (and subkey) that `also` names. Answers how many.
    pub(crate) fn remove(
        &mut self,
        key: &str,
        subkey: Option<&str>,
        also: impl Fn(&Record) -> bool,
    ) -> usize {
        let (key, subkey) = (fold(key), subkey.map(fold));
        let Some(group) = self.groups.get_mut(&key) else { return 0 };
        let before = group.len();
        group.retain(|place, record| {
            let named = subkey.as_ref().is_none_or(|wanted| place.first() == Some(wanted));
            !(named && also(record))
        });
        let removed = before - group.len();
        if group.is_empty() {
            self.groups.remove(&key);
        }
        removed
    }

    /// What `GET /{v}/datasets/{ws}/{ds}` tells about the data set.
    pub(crate) fn describe(&self, workspace: &str, id: &str) -> Value {
        let Schema { key, subkey, date, id: id_field } = &self.schema;
        json!({
            "id": id, "workspace": workspace, "key": key, "subkey": subkey, "date": date, "idField": id_field,
            "keys": self.groups.len(), "records": self.len(), "readOnly": self.read_only,
        })
    }

    fn place(&self, at: usize, record: &Record) -> Result<(String, Place), RecordError> {
        let text = |field: Option<&String>| match field.and_then(|name| Some((name, record.get(name)?))) {
            None => Ok(String::new()),
            Some((name, value)) => text_of(value)
                .map(|text| fold(&text))
                .ok_or_else(|| RecordError::BadPlace { at, field: name.clone() }),
        };
        let key = text(Some(&self.schema.key))?;
        if key.is_empty() {
            return Err(RecordError::NoKey { at, field: self.schema.key.clone() });
        }
        let schema = &self.schema;
        Ok((key, [text(schema.subkey.as_ref())?, text(schema.date.as_ref())?, text(schema.id.as_ref())?]))
    }
}

/// Gives the record the value from the path, or checks that it already has it.
fn settle(record: &mut Record, at: usize, field: &str, path: &str) -> Result<(), RecordError> {
    let has = record.get(field).map(text_of);
    match has {
        None => {
            record.insert(field.to_owned(), Value::from(path));
            Ok(())
        }
        Some(Some(has)) if fold(&has) == fold(path) => Ok(()),
        Some(Some(has)) => {
            Err(RecordError::OtherPlace { at, field: field.to_owned(), has, path: path.to_owned() })
        }
        Some(None) => Err(RecordError::BadPlace { at, field: field.to_owned() }),
    }
}

/// Takes a JSON body apart: an array of objects, or one object.
pub(crate) fn parse_records(body: Value) -> Result<Vec<Record>, RecordError> {
    let items = match body {
        Value::Array(items) => items,
        one => vec![one],
    };
    let object = |(at, item)| match item {
        Value::Object(record) => Ok(record),
        _ => Err(RecordError::NotAnObject { at }),
    };
    items.into_iter().enumerate().map(object).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trips() -> Dataset {
        let mut set = Dataset::new(Schema::new("city", Some("line"), Some("date"), None));
        let body = json!([
            {"city": "Oslo", "line": 12, "date": "2020-01-02", "riders": 5},
            {"city": "Oslo", "line": 12, "date": "2020-01-01", "riders": 4},
            {"city": "Bonn", "line": 66, "date": "2020-01-01", "riders": 9},
        ]);
        set.upsert(parse_records(body).unwrap()).unwrap();
        set
    }

    fn record(value: Value) -> Record {
        parse_records(value).unwrap().remove(0)
    }

    #[test]
    fn finds_keys_and_subkeys_whatever_their_case_in_order_of_date() {
        let set = trips();
        let dates: Vec<_> = set.under("OSLO", Some("12")).map(|found| found["date"].clone()).collect();
        assert_eq!(dates, ["2020-01-01", "2020-01-02"]);
        assert_eq!(set.under("oslo", Some("66")).count(), 0);
        assert_eq!(set.under("Rome", None).count(), 0);
    }

    #[test]
    fn writes_a_record_in_place_of_the_one_that_stood_there() {
        let mut set = trips();
        let newer = record(json!({"city": "oslo", "line": "12", "date": "2020-01-01", "riders": 40}));
        assert_eq!(set.upsert(vec![newer]), Ok(1));
        assert_eq!(set.len(), 3);
        assert_eq!(set.under("Oslo", None).next().unwrap()["riders"], 40);
    }

    #[test]
    fn writes_nothing_when_one_record_of_many_is_bad() {
        let mut set = trips();
        let batch = parse_records(json!([{"city": "Rome"}, {"line": 1}])).unwrap();
        assert_eq!(set.upsert(batch), Err(RecordError::NoKey { at: 1, field: "city".to_owned() }));
        let batch = parse_records(json!([{"city": "Rome"}, {"city": ["Rome"]}])).unwrap();
        assert_eq!(set.upsert(batch), Err(RecordError::BadPlace { at: 1, field: "city".to_owned() }));
        assert_eq!(set.len(), 3);
    }

    #[test]
    fn patch_merges_fields_and_refuses_to_move_a_record() {
        let mut set = trips();
        let change = record(json!({"riders": null, "late": true}));
        assert_eq!(set.patch("oslo", Some("12"), &change), Ok(2));
        let first = set.under("oslo", None).next().unwrap();
        assert_eq!((first.get("riders"), first.get("late")), (None, Some(&Value::Bool(true))));
        let change = record(json!({"city": "Rome"}));
        assert_eq!(set.patch("oslo", None, &change), Err(RecordError::Moved { field: "city".to_owned() }));
        assert_eq!(set.patch("rome", None, &change), Ok(0));
    }

    #[test]
    fn replace_fills_the_key_from_the_path_and_refuses_another() {
        let mut set = trips();
        assert_eq!(set.replace("Oslo", Some("12"), vec![record(json!({"riders": 1}))]), Ok(1));
        assert_eq!(set.under("oslo", Some("12")).count(), 1);
        let other = vec![record(json!({"city": "Rome"}))];
        assert!(matches!(set.replace("Oslo", None, other), Err(RecordError::OtherPlace { .. })));
        assert_eq!(set.under("oslo", None).count(), 1);
    }

    #[test]
    fn removes_only_what_was_named() {
        let mut set = trips();
        assert_eq!(set.remove("oslo", None, |record| record["date"] == "2020-01-01"), 1);
        assert_eq!(set.remove("oslo", Some("66"), |_| true), 0);
        assert_eq!(set.remove("oslo", Some("12"), |_| true), 1);
        assert_eq!(set.remove("oslo", None, |_| true), 0);
        assert_eq!(set.len(), 1);
    }
}
