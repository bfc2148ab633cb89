//! Lists of generations.

use super::*;
use crate::store::testing::on_both_databases;

fn page(limit: u32) -> GenerationFilter {
    GenerationFilter { limit, ..GenerationFilter::default() }
}

async fn list(desk: &Desk, filter: GenerationFilter) -> Vec<GenerationId> {
    let page = desk.books.list_generations(&filter).await.unwrap();
    page.items.iter().map(|record| record.id).collect()
}

on_both_databases! {
    async fn pages_follow_each_other_newest_first_without_gap_or_overlap(database) {
        let desk = Desk::open(&database).await;
        let mut all = Vec::new();
        for _ in 0..25 {
            all.push(desk.reserve(dollars("0.1")).await);
        }
        all.reverse();
        let mut seen = Vec::new();
        let mut filter = page(10);
        let mut sizes = Vec::new();
        loop {
            let page = desk.books.list_generations(&filter).await.unwrap();
            sizes.push(page.items.len());
            seen.extend(page.items.iter().map(|record| record.id));
            filter.after = seen.last().copied();
            if !page.has_more {
                break;
            }
        }
        assert_eq!(sizes, [10, 10, 5]);
        assert_eq!(seen, all);
        filter = GenerationFilter { limit: 25, ..GenerationFilter::default() };
        assert!(!desk.books.list_generations(&filter).await.unwrap().has_more);
        desk.close().await;
    }

    async fn each_filter_keeps_what_matches_it(database) {
        let mut desk = Desk::open(&database).await;
        let plain = desk.reserve(dollars("0.1")).await;
        let later = NOW.plus(Duration::from_secs(10));
        let special = Reservation {
            created_at: later,
            model: "imagen4/preview".to_owned(),
            user: Some("eve".to_owned()),
            ..desk.reservation(dollars("0.1"))
        };
        let special_id = special.id;
        desk.books.reserve(special).await.unwrap();
        desk.books.submitted(submit_of(special_id, 1)).await.unwrap();
        desk.books.submitted(submit_of(special_id, 2)).await.unwrap();
        desk.books.finish(delivered(special_id, dollars("0.1"), Money::ZERO)).await.unwrap();
        let (first_project, first_key) = (desk.project, desk.key);
        (desk.project, desk.key) = desk.store.add_project(NOW).await;
        let foreign = desk.reserve(dollars("0.1")).await;
        assert_eq!(list(&desk, page(10)).await, [foreign, special_id, plain]);
        for (filter, expected) in [
            (GenerationFilter { created_from: Some(later), ..page(10) }, vec![special_id]),
            (GenerationFilter { created_before: Some(later), ..page(10) }, vec![foreign, plain]),
            (GenerationFilter { project_id: Some(first_project), ..page(10) }, vec![special_id, plain]),
            (GenerationFilter { api_key_id: Some(first_key), ..page(10) }, vec![special_id, plain]),
            (GenerationFilter { model: Some("imagen4/preview".to_owned()), ..page(10) }, vec![special_id]),
            (GenerationFilter { state: Some(GenerationState::Queued), ..page(10) }, vec![foreign, plain]),
            (GenerationFilter { user: Some("eve".to_owned()), ..page(10) }, vec![special_id]),
            (GenerationFilter { provider_request_id: Some(format!("fal-{special_id}-1")), ..page(10) }, vec![special_id]),
            (GenerationFilter { provider_request_id: Some("nothing".to_owned()), ..page(10) }, vec![]),
            (GenerationFilter { project_id: Some(first_project), after: Some(special_id), ..page(10) }, vec![plain]),
        ] {
            assert_eq!(list(&desk, filter.clone()).await, expected, "{filter:?}");
        }
        desk.close().await;
    }
}
