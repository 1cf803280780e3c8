//! Where files go: `target/bench`.

use std::path::PathBuf;

use benches::children::Children;

pub(crate) fn folder() -> PathBuf {
    let target = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    target.parent().expect("cargo's folder for temporary files is below `target`").join("bench")
}

pub(crate) fn children() -> Children {
    Children::in_folder(&folder())
}
