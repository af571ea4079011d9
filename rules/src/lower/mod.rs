//! Guards: from Rhai's AST, as parsed, to native terms that workers and the judge evaluate.
//! Lowering runs at load time; the terms go into the rule set.

mod arithmetic;
pub(crate) mod expr;
mod membership;
mod operators;
pub(crate) mod row;
pub(crate) mod test;
mod text;
pub(crate) mod types;
