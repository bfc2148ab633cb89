//! The model files that the program carries.

/// File names and texts, ordered by name.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
    ("flux-dev.toml", include_str!("models/flux-dev.toml")),
    ("flux-realism.toml", include_str!("models/flux-realism.toml")),
];
