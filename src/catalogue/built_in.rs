//! The model files that the program carries.

/// File names and texts, ordered by name.
pub(super) const BUILT_IN: &[(&str, &str)] = &[
    ("f-lite-standard.toml", include_str!("models/f-lite-standard.toml")),
    ("flux-1-schnell.toml", include_str!("models/flux-1-schnell.toml")),
    ("flux-dev.toml", include_str!("models/flux-dev.toml")),
    ("flux-realism.toml", include_str!("models/flux-realism.toml")),
    ("hidream-i1-fast.toml", include_str!("models/hidream-i1-fast.toml")),
    ("hidream-i1-full.toml", include_str!("models/hidream-i1-full.toml")),
    ("ideogram-v2.toml", include_str!("models/ideogram-v2.toml")),
    ("imagen4-preview-fast.toml", include_str!("models/imagen4-preview-fast.toml")),
    ("imagen4-preview.toml", include_str!("models/imagen4-preview.toml")),
    ("omnigen-v2.toml", include_str!("models/omnigen-v2.toml")),
    ("recraft-v2-text-to-image.toml", include_str!("models/recraft-v2-text-to-image.toml")),
    ("stable-diffusion-v35-large.toml", include_str!("models/stable-diffusion-v35-large.toml")),
];
