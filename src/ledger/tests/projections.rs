//! The projections follow the events, can be made again from them, and what the writer remembers is never taken for what is.

use super::*;
use crate::store::testing::on_both_databases;

on_both_databases! {
    async fn whoever_asks_sees_what_was_committed_before(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        for _ in 0..20 {
            let id = desk.reserve(dollars("0.1")).await;
            assert_eq!(other.books.generation(id).await.unwrap().unwrap().state, GenerationState::Queued);
            desk.books.finish(delivered(id, dollars("0.1"), Money::ZERO)).await.unwrap();
            let filter = GenerationFilter { ended: true, limit: 1, ..GenerationFilter::default() };
            assert_eq!(other.books.list_generations(&filter).await.unwrap().items[0].id, id);
        }
        other.close().await;
        desk.close().await;
    }

    async fn the_events_say_what_happened_in_order(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("0.1")).await;
        desk.books.submitted(submit_of(id, 1)).await.unwrap();
        desk.books.running(id, NOW).await.unwrap();
        desk.books.submitted(submit_of(id, 2)).await.unwrap();
        desk.books.finish(delivered(id, dollars("0.1"), dollars("0.05"))).await.unwrap();
        let kinds = desk.store.texts("SELECT kind FROM ledger_events ORDER BY n").await;
        assert_eq!(kinds, ["reserved", "submitted", "started", "submitted", "settled"]);
        let amounts = "SELECT CAST(held AS TEXT) || ' ' || CAST(revenue AS TEXT) FROM ledger_events ORDER BY n";
        assert_eq!(desk.store.texts(amounts).await, ["100000000 0", "0 0", "0 0", "0 0", "-100000000 100000000"]);
        desk.close().await;
    }

    async fn projections_that_were_lost_or_changed_are_made_again(database) {
        let desk = Desk::open(&database).await;
        let mut ids = Vec::new();
        for _ in 0..5 {
            let id = desk.reserve(dollars("1")).await;
            desk.books.submitted(submit_of(id, 1)).await.unwrap();
            ids.push(id);
        }
        for id in &ids[..3] {
            desk.books.finish(delivered(*id, dollars("0.5"), dollars("0.25"))).await.unwrap();
        }
        desk.books.finish(failed(ids[3])).await.unwrap();
        let refund = Refund {
            id: SystemIds.uuid(),
            generation: ids[0],
            amount: dollars("0.1"),
            reason: "dark".to_owned(),
            author: "ada".to_owned(),
            at: NOW,
            audit: None,
        };
        desk.books.refund(&refund).await.unwrap();
        let mut before = Vec::new();
        for id in &ids {
            before.push(desk.books.generation(*id).await.unwrap().unwrap());
        }
        assert_eq!(desk.books.verify().await, Ok(vec![]));

        desk.store.execute("UPDATE generations SET price = 1, images = 7 WHERE price > 0").await.unwrap();
        let lost = if desk.store.is_postgres() { format!("'{}'", ids[1].uuid()) } else { format!("x'{}'", ids[1].uuid().simple()) };
        desk.store.execute(&format!("DELETE FROM generations WHERE id = {lost}")).await.unwrap();
        desk.store.execute("DELETE FROM usage_days").await.unwrap();
        assert_ne!(desk.books.verify().await, Ok(vec![]));

        let rebuilt = desk.store.rebuild().await.unwrap();
        assert_eq!((rebuilt.missing, rebuilt.changed), (1, 2));
        assert_eq!(desk.books.verify().await, Ok(vec![]));
        for (id, before) in ids.iter().zip(before) {
            assert_eq!(desk.books.generation(*id).await.unwrap(), Some(before));
        }
        assert_eq!(desk.store.rebuild().await.unwrap(), crate::store::Rebuilt { streams: 6, ..Default::default() });
        desk.close().await;
    }

    async fn an_event_that_cannot_be_projected_keeps_no_other_from_being_seen(database) {
        let desk = Desk::open(&database).await;
        let first = desk.reserve(dollars("0.1")).await;
        assert!(desk.books.generation(first).await.unwrap().is_some());
        // Its events are there and it is not.
        desk.store.execute("DELETE FROM generations").await.unwrap();
        desk.books.finish(failed(first)).await.unwrap();
        let second = desk.reserve(dollars("0.1")).await;
        assert!(desk.books.generation(second).await.unwrap().is_some());
        let found = desk.books.verify().await.unwrap();
        assert!(found.is_empty(), "nothing was booked for it: {found:?}");
        assert_eq!(desk.store.rebuild().await.unwrap().missing, 1);
        assert_eq!(desk.books.generation(first).await.unwrap().unwrap().state, GenerationState::Failed);
        desk.close().await;
    }

    async fn the_address_of_a_webhook_does_not_stay_in_the_events(database) {
        let desk = Desk::open(&database).await;
        let webhook = Webhook {
            id: crate::domain::WebhookDeliveryId::from_uuid(SystemIds.uuid()),
            url: "https://example.com/?token=secret".to_owned(),
            host: "example.com:443".to_owned(),
            form: WebhookForm::Imagegate,
            base_url: "http://localhost".to_owned(),
        };
        let reservation = Reservation { webhook: Some(webhook), ..desk.reservation(dollars("0.1")) };
        let id = reservation.id;
        desk.books.reserve(reservation).await.unwrap();
        let kept = desk.store.texts("SELECT payload || content FROM ledger_events").await;
        assert!(!kept[0].contains("secret") && kept[0].contains("num_images"), "{kept:?}");
        assert_eq!(desk.store.texts("SELECT url FROM webhook_deliveries").await, ["https://example.com/?token=secret"]);
        desk.books.finish(failed(id)).await.unwrap();
        desk.close().await;
    }

    async fn what_others_change_counts_at_once(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        // The first writer remembers the project and its key.
        desk.reserve(dollars("0.1")).await;
        desk.reserve(dollars("0.1")).await;
        desk.store.change_project(desk.project, |project| project.spend_limit = Some(dollars("0.45"))).await;
        desk.reserve(dollars("0.1")).await;
        other.reserve(dollars("0.1")).await;
        let refused = desk.books.reserve(desk.reservation(dollars("0.1"))).await;
        assert!(matches!(refused, Err(ReserveError::SpendLimitReached { .. })), "{refused:?}");
        desk.store.change_project(desk.project, |project| project.spend_limit = None).await;
        desk.reserve(dollars("0.1")).await;
        desk.store.execute("UPDATE api_keys SET revoked_at = 5").await.unwrap();
        assert_eq!(desk.books.reserve(desk.reservation(dollars("0.1"))).await, Err(ReserveError::KeyRevoked));
        desk.store.execute("UPDATE api_keys SET revoked_at = NULL").await.unwrap();
        desk.prepaid(dollars("0.55")).await;
        let refused = desk.books.reserve(desk.reservation(dollars("0.1"))).await;
        assert!(matches!(refused, Err(ReserveError::InsufficientCredit { .. })), "{refused:?}");
        other.books.credit(&desk.top_up(dollars("0.1"))).await.unwrap();
        desk.reserve(dollars("0.1")).await;
        other.close().await;
        desk.close().await;
    }

    async fn of_two_replicas_that_end_one_generation_one_does(database) {
        let desk = Desk::open(&database).await;
        let other = desk.another(&database).await;
        for _ in 0..20 {
            let id = desk.reserve(dollars("0.1")).await;
            // Both remember it.
            other.books.submitted(submit_of(id, 1)).await.unwrap();
            let (one, two) = tokio::join!(
                desk.books.finish(delivered(id, dollars("0.1"), Money::ZERO)),
                other.books.finish(failed(id))
            );
            let applied = [one.unwrap(), two.unwrap()];
            assert_eq!(applied.iter().filter(|applied| **applied == Applied::Now).count(), 1, "{applied:?}");
        }
        assert_eq!(desk.balance().await.held, Money::ZERO);
        other.close().await;
        desk.close().await;
    }
}
