//! The operators' HTTP face: OpenAI's organization API, and what it has no word for.

mod generations;
mod keys;
mod projects;
mod usage;

use utoipa_actix_web::service_config::ServiceConfig;

/// The routes of the operators' face.
pub fn routes(config: &mut ServiceConfig) {
    config
        .service(generations::list_generations)
        .service(generations::retrieve_generation)
        .service(projects::retrieve_project)
        .service(projects::update_project)
        .service(projects::create_project_credit)
        .service(projects::update_organization)
        .service(keys::update_key)
        .service(usage::list_image_usage);
}
