//! Conformance with stacks of others: what they speak goes through, and what none of them should speak is answered as the
//! standards say.

mod tls;

use std::path::PathBuf;

use super::credentials::packages;

/// Packages of Python that bots and servers here are made of.
fn python_packages() -> PathBuf {
    packages::install("conformance-python", include_str!("conformance/requirements.txt"))
}
