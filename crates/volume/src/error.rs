//! Errors by family of operations. Every one has a `class()`, and those that an operator sees have
//! a stable `code()` of the registry in `landfall-api-types`.

mod content;
mod fold;
mod ingest;
mod point;
mod role;
mod storage;

pub use content::ContentError;
pub use fold::FoldError;
pub use ingest::IngestError;
pub use point::PointError;
pub use role::RoleError;
pub use storage::StorageError;
