//! The operators' HTTP face: OpenAI's organization API, and what it has no word for.

mod admin_keys;
mod api_keys;
mod audit_logs;
mod costs;
mod generations;
mod keys;
mod organization_projects;
mod projects;
mod service_accounts;
mod shapes;
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
        .service(usage::list_image_usage)
        .service(costs::list_costs)
        .service(organization_projects::create_project)
        .service(organization_projects::list_projects)
        .service(organization_projects::retrieve_project)
        .service(organization_projects::update_project)
        .service(organization_projects::archive_project)
        .service(service_accounts::create_service_account)
        .service(service_accounts::list_service_accounts)
        .service(service_accounts::retrieve_service_account)
        .service(service_accounts::update_service_account)
        .service(service_accounts::delete_service_account)
        .service(service_accounts::create_service_account_api_key)
        .service(api_keys::list_project_api_keys)
        .service(api_keys::retrieve_project_api_key)
        .service(api_keys::update_project_api_key)
        .service(api_keys::delete_project_api_key)
        .service(api_keys::rotate_key)
        .service(admin_keys::create_admin_api_key)
        .service(admin_keys::list_admin_api_keys)
        .service(admin_keys::retrieve_admin_api_key)
        .service(admin_keys::delete_admin_api_key)
        .service(audit_logs::list_audit_logs);
}
