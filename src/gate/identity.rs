//! The node's own name: made once, kept in `state_dir`.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use super::GateError;
use crate::store::NodeId;

/// The name in `state_dir/node-id`, or a new one written there.
pub(super) fn node(state_dir: &Path) -> Result<NodeId, GateError> {
    let path = state_dir.join("node-id");
    let failed = |source| GateError::Identity { path: path.clone(), source };
    match fs::read_to_string(&path) {
        Ok(text) => {
            let known = ulid::Ulid::from_string(text.trim());
            let garbled =
                |_| failed(io::Error::new(ErrorKind::InvalidData, "it is not a ULID; remove the file"));
            known.map(NodeId).map_err(garbled)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let node = ulid::Ulid::generate();
            fs::create_dir_all(state_dir).map_err(failed)?;
            let draft = path.with_extension("new");
            fs::write(&draft, format!("{node}\n"))
                .and_then(|()| fs::rename(&draft, &path))
                .map_err(failed)?;
            Ok(NodeId(node))
        }
        Err(source) => Err(failed(source)),
    }
}
