//! Looks and touches nothing: the self-diagnosis.
