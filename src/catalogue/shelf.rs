//! The catalogue: every model, found by id or alias in any letter case.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::built_in::BUILT_IN;
use super::error::CatalogueError;
use super::file::check_file;
use super::json::Json;
use super::model::{Model, Parameter, Status};
use super::nearest::nearest;
use super::order::Order;
use super::problem::Rejection;
use super::validate::{self, Presets};
use crate::domain::{Adapt, Alias, Aliases};

/// Every model that is known, as one unchanging snapshot.
#[derive(Debug)]
pub struct Catalogue {
    models: Vec<Arc<Model>>,
    /// Ids and aliases in lower case, to the place in `models`.
    places: HashMap<Box<str>, usize>,
    /// Every name of a parameter of a model on offer.
    fields: HashSet<Box<str>>,
    version: String,
}

/// What becomes of fields that a model does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Strictness {
    /// They are ignored and named in [`Order::ignored`].
    #[default]
    Lenient,
    /// They are problems.
    Strict,
}

/// How a request is read.
#[derive(Debug, Clone, Default)]
pub struct Handling {
    /// What becomes of unknown fields.
    pub strictness: Strictness,
    /// What may be changed where it does not fit.
    pub adapt: Adapt,
    /// The operator's names for models.
    pub aliases: Aliases,
    /// Whether images come embedded as well where the request does not say how they are to come.
    pub embeds: bool,
}

impl From<Strictness> for Handling {
    fn from(strictness: Strictness) -> Self {
        Self { strictness, ..Self::default() }
    }
}

impl From<&Self> for Handling {
    fn from(handling: &Self) -> Self {
        handling.clone()
    }
}

impl Catalogue {
    /// The models that the program carries.
    pub fn built_in() -> Result<Self, CatalogueError> {
        Self::load(BUILT_IN, &[])
    }

    /// Nothing but these files, each a name and a text.
    pub fn of_files(files: &[(String, String)]) -> Result<Self, CatalogueError> {
        Self::load(&[], files)
    }

    /// The built-in models, with those of the folder's `*.toml` files added, or put in place of a built-in model that
    /// has the same id.
    pub fn with_directory(folder: &Path) -> Result<Self, CatalogueError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |cause| CatalogueError::Unreadable { path, cause }
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
            let path = entry.map_err(unreadable(folder))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                paths.push(path);
            }
        }
        paths.sort();
        let mut files = Vec::with_capacity(paths.len());
        for path in paths {
            let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            files.push((path.display().to_string(), text));
        }
        Self::load(BUILT_IN, &files)
    }

    /// The first files, then `more`, which may replace them; each with its name.
    fn load(first: &[(&str, &str)], more: &[(String, String)]) -> Result<Self, CatalogueError> {
        let mut version = Sha256::new();
        let mut models: Vec<(Arc<Model>, &str)> = Vec::new();
        for (name, text) in first {
            version.update(text);
            models.push((Arc::new(check_file(text, name)?), "built in"));
        }
        let built_in = models.len();
        for (name, text) in more {
            version.update(text);
            let model = Arc::new(check_file(text, name)?);
            match models.iter_mut().take(built_in).find(|(known, _)| known.id.eq_ignore_ascii_case(&model.id)) {
                Some(replaced) => *replaced = (model, name),
                None => models.push((model, name)),
            }
        }
        models.sort_by(|(one, _), (another, _)| one.id.cmp(&another.id));
        let places = find_places(&models)?;
        let models: Vec<Arc<Model>> = models.into_iter().map(|(model, _)| model).collect();
        check_fallbacks(&models, &places)?;
        let fields = models.iter().filter(|model| model.is_offered()).flat_map(|model| &model.parameters);
        let fields = fields.flat_map(Parameter::names).map(Box::from).collect();
        Ok(Self { models, places, fields, version: hex::encode(version.finalize()) })
    }

    /// The model of this id or alias, in any letter case; withdrawn models too.
    #[must_use]
    pub fn model(&self, id: &str) -> Option<&Arc<Model>> {
        let id = if id.bytes().any(|byte| byte.is_ascii_uppercase()) {
            Cow::Owned(id.to_ascii_lowercase())
        } else {
            Cow::Borrowed(id)
        };
        self.models.get(*self.places.get(id.as_ref())?)
    }

    /// The model that is made at this endpoint of this provider, or that has the endpoint's name; withdrawn models too.
    #[must_use]
    pub fn model_of_endpoint(&self, provider: &str, endpoint: &str) -> Option<&Arc<Model>> {
        let made_there = self.models.iter().find(|model| {
            let several = model.several.as_ref().is_some_and(|several| several.endpoint == endpoint);
            model.provider == provider && (model.endpoint == endpoint || several)
        });
        made_there.or_else(|| self.model(endpoint).filter(|model| model.provider == provider))
    }

    /// Every model, ordered by id; [`Model::is_offered`] tells those that can be ordered.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.iter()
    }

    /// Whether any model on offer has a parameter of this name.
    pub(super) fn has_field(&self, name: &str) -> bool {
        self.fields.contains(name)
    }

    /// A hex digest of all the files: it changes when any of them does.
    #[must_use]
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Checks a request's JSON against the model that it names, by an alias of the operator's or the catalogue's own names.
    pub fn order(&self, wish: &Json<'_>, handling: impl Into<Handling>) -> Result<Order, Rejection> {
        let handling = handling.into();
        let name = validate::model_of(wish)?;
        let alias = handling.aliases.get(name);
        let mut order =
            self.order_by(alias.map_or(name, |alias| &alias.target), alias.map(AsRef::as_ref), wish, &handling)?;
        let known = |known: &&String| known.eq_ignore_ascii_case(name);
        let requested = alias.map(|alias| &alias.id).or_else(|| order.model.aliases.iter().find(known));
        if let Some(requested) = requested {
            order.requested.clone_from(requested);
        }
        Ok(order)
    }

    /// Checks a request's JSON against a model other than the one it names: a fallback. The values of an alias that it names
    /// must fit that model as well.
    pub fn order_from(&self, model: &str, wish: &Json<'_>, handling: &Handling) -> Result<Order, Rejection> {
        let alias = validate::model_of(wish).ok().and_then(|name| handling.aliases.get(name));
        self.order_by(model, alias.map(AsRef::as_ref), wish, handling)
    }

    fn order_by(
        &self,
        model: &str,
        alias: Option<&Alias>,
        wish: &Json<'_>,
        handling: &Handling,
    ) -> Result<Order, Rejection> {
        let model = self.offered_model(model)?;
        let presets = match alias {
            None => Presets::default(),
            Some(alias) => Presets::read(Some(self), model, alias).map_err(|problems| {
                let named = problems.into_iter().map(|(_, mut problem)| {
                    problem.message = format!("the alias `{}` does not fit: {}", alias.id, problem.message);
                    problem
                });
                Rejection::Invalid(named.collect())
            })?,
        };
        validate::order(Some(self), model, wish, &presets, handling).map_err(Rejection::Invalid)
    }

    /// The model of this id or alias, if it can be ordered.
    pub fn offered_model(&self, model: &str) -> Result<&Arc<Model>, Rejection> {
        let Some(known) = self.model(model) else {
            let model = model.chars().take(200).collect::<String>();
            let nearest = self.nearest(&model);
            return Err(Rejection::UnknownModel { model, nearest });
        };
        if !known.is_offered() {
            let model = known.id.clone();
            return Err(match known.status {
                Status::Unpriced => Rejection::Unpriced { model },
                _ => Rejection::Withdrawn { model, replaced_by: known.replaced_by.clone() },
            });
        }
        Ok(known)
    }

    /// The offered id or alias that differs least from this name.
    pub(super) fn nearest(&self, name: &str) -> Option<String> {
        let offered = self.models.iter().filter(|model| model.is_offered());
        let names = offered.flat_map(|model| std::iter::once(&model.id).chain(&model.aliases)).map(String::as_str);
        nearest(name, names).map(str::to_owned)
    }
}

/// Each fallback is a model that is on offer.
fn check_fallbacks(models: &[Arc<Model>], places: &HashMap<Box<str>, usize>) -> Result<(), CatalogueError> {
    for model in models {
        for fallback in &model.fallbacks {
            let place = places.get(fallback.to_ascii_lowercase().as_str());
            let known = place.and_then(|place| models.get(*place)).filter(|known| known.is_offered());
            if known.is_none_or(|known| known.id == model.id) {
                return Err(CatalogueError::Fallback { model: model.id.clone(), fallback: fallback.clone() });
            }
        }
    }
    Ok(())
}

/// Where each id and alias leads.
fn find_places(models: &[(Arc<Model>, &str)]) -> Result<HashMap<Box<str>, usize>, CatalogueError> {
    let mut places = HashMap::new();
    for (place, (model, file)) in models.iter().enumerate() {
        for id in std::iter::once(&model.id).chain(&model.aliases) {
            let earlier = places.insert(id.to_ascii_lowercase().into_boxed_str(), place);
            if let Some((earlier, earlier_file)) = earlier.and_then(|earlier| models.get(earlier)) {
                return Err(CatalogueError::Clash {
                    id: id.clone(),
                    first: earlier.id.clone(),
                    first_file: (*earlier_file).to_owned(),
                    second: model.id.clone(),
                    second_file: (*file).to_owned(),
                });
            }
        }
    }
    Ok(places)
}
