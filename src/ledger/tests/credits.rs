//! Top-ups, corrections and refunds.

use futures_util::future::join_all;

use super::*;
use crate::store::testing::on_both_databases;

fn refund(generation: GenerationId, amount: Money) -> Refund {
    Refund {
        id: SystemIds.uuid(),
        generation,
        amount,
        reason: "a bad picture".to_owned(),
        author: "ada".to_owned(),
        at: NOW,
        audit: None,
    }
}

on_both_databases! {
    async fn a_credit_is_booked_once_whatever_is_resent(database) {
        let desk = Desk::open(&database).await;
        let credit = desk.top_up(dollars("10"));
        let results = join_all((0..10).map(|_| desk.books.credit(&credit))).await;
        assert_eq!(results.iter().filter(|result| **result == Ok(Applied::Now)).count(), 1);
        assert_eq!(results.iter().filter(|result| **result == Ok(Applied::Already)).count(), 9);
        assert_eq!(desk.balance().await.posted, dollars("10"));
        desk.close().await;
    }

    async fn a_balance_stays_within_what_the_books_can_add_up(database) {
        let desk = Desk::open(&database).await;
        let billion = dollars("1000000000");
        assert_eq!(desk.books.credit(&desk.top_up(billion)).await, Ok(Applied::Now));
        assert_eq!(desk.books.credit(&desk.top_up(dollars("0.01"))).await, Err(LedgerError::BalanceTooLarge));
        let most = Credit { kind: CreditKind::Correction, ..desk.top_up(Money::from_nanos(i64::MIN + 1)) };
        assert_eq!(desk.books.credit(&most).await, Err(LedgerError::BalanceTooLarge));
        assert_eq!(desk.balance().await.posted, billion);
        desk.close().await;
    }

    async fn a_correction_may_take_away_and_a_top_up_may_not(database) {
        let desk = Desk::open(&database).await;
        let correction = Credit { kind: CreditKind::Correction, ..desk.top_up(dollars("-3")) };
        assert_eq!(desk.books.credit(&correction).await, Ok(Applied::Now));
        assert_eq!(desk.balance().await.posted, dollars("-3"));
        for wrong in [
            desk.top_up(dollars("-3")),
            desk.top_up(Money::ZERO),
            Credit { reason: " ".to_owned(), ..desk.top_up(dollars("3")) },
            Credit { kind: CreditKind::Correction, ..desk.top_up(Money::ZERO) },
            Credit { kind: CreditKind::Goodwill, ..desk.top_up(dollars("-3")) },
            Credit { kind: CreditKind::Goodwill, ..desk.top_up(Money::ZERO) },
        ] {
            assert!(matches!(desk.books.credit(&wrong).await, Err(LedgerError::Invalid(_))));
        }
        let nobody = Credit { project_id: ProjectId::from_uuid(SystemIds.uuid()), ..desk.top_up(dollars("3")) };
        assert_eq!(desk.books.credit(&nobody).await, Err(LedgerError::UnknownProject));
        desk.close().await;
    }

    async fn the_kind_of_a_credit_is_the_callers_choice(database) {
        let desk = Desk::open(&database).await;
        for (kind, amount) in [("goodwill", "2"), ("correction", "3"), ("correction", "-1"), ("top_up", "4")] {
            let credit = Credit { kind: kind.parse().unwrap(), ..desk.top_up(dollars(amount)) };
            assert_eq!(desk.books.credit(&credit).await, Ok(Applied::Now));
            let found = format!("SELECT COUNT(*) FROM ledger_transactions WHERE kind = '{kind}' AND project = {}", credit.amount.nanos());
            assert_eq!(desk.store.number(&found).await, 1);
            // The same id with another kind is a mistake, and books nothing.
            let other = Credit { kind: CreditKind::Correction, ..credit.clone() };
            let expected = if kind == "correction" { Ok(Applied::Already) } else { Err(LedgerError::SameIdOtherAmount) };
            assert_eq!(desk.books.credit(&other).await, expected);
        }
        assert_eq!(desk.balance().await.posted, dollars("8"));
        assert!("gift".parse::<CreditKind>().is_err());
        desk.close().await;
    }

    async fn refunds_together_give_back_no_more_than_was_charged(database) {
        let desk = Desk::open(&database).await;
        let id = desk.reserve(dollars("1")).await;
        desk.books.finish(delivered(id, dollars("1"), dollars("0.5"))).await.unwrap();
        let refunds: Vec<_> = (0..10).map(|_| refund(id, dollars("0.3"))).collect();
        let results = join_all(refunds.iter().map(|refund| desk.books.refund(refund))).await;
        assert_eq!(results.iter().filter(|result| **result == Ok(Applied::Now)).count(), 3);
        let refused = Err(LedgerError::AboveCharge { amount: dollars("0.3"), charged: dollars("0.1") });
        assert_eq!(results.iter().filter(|result| **result == refused).count(), 7);
        let balance = desk.balance().await;
        assert_eq!((balance.posted, balance.spent_this_month), (dollars("-0.1"), dollars("0.1")));
        let entries = desk.books.entries(id).await.unwrap();
        let refund = entries.iter().find(|entry| entry.kind == TransactionKind::Refund).unwrap();
        assert_eq!((refund.reason.as_str(), refund.author.as_deref()), ("a bad picture", Some("ada")));
        desk.close().await;
    }

    async fn what_was_free_or_is_open_or_unknown_cannot_be_refunded(database) {
        let desk = Desk::open(&database).await;
        let free = desk.reserve(dollars("1")).await;
        desk.books.finish(failed(free)).await.unwrap();
        let open = desk.reserve(dollars("1")).await;
        for id in [free, open] {
            assert!(matches!(
                desk.books.refund(&refund(id, dollars("0.1"))).await,
                Err(LedgerError::AboveCharge { .. })
            ));
        }
        let unknown = GenerationId::from_uuid(SystemIds.uuid());
        assert_eq!(
            desk.books.refund(&refund(unknown, dollars("0.1"))).await,
            Err(LedgerError::UnknownGeneration(unknown))
        );
        desk.close().await;
    }

    async fn the_check_finds_sums_that_were_tampered_with(database) {
        let desk = Desk::open(&database).await;
        let open = desk.reserve(dollars("1")).await;
        let ended = desk.reserve(dollars("1")).await;
        desk.books.finish(delivered(ended, dollars("1"), dollars("0.5"))).await.unwrap();
        desk.submit_what_cost().await;
        assert_eq!(desk.books.verify().await, Ok(vec![]));
        for (harm, mend, finds) in [
            ("UPDATE balances SET posted = posted + 1", "UPDATE balances SET posted = posted - 1", "the posted balance of a project"),
            ("UPDATE balances SET held = held + 1", "UPDATE balances SET held = held - 1", "the held balance of a project"),
            ("UPDATE key_balances SET spent = spent + 1", "UPDATE key_balances SET spent = spent - 1", "what a key has spent"),
            ("UPDATE key_balances SET held = held + 1", "UPDATE key_balances SET held = held - 1", "what is held for a key"),
            ("UPDATE monthly_spend SET spent = spent + 1", "UPDATE monthly_spend SET spent = spent - 1", "what a project was charged in a month"),
            ("UPDATE generations SET price = price - 1 WHERE price > 0", "UPDATE generations SET price = price + 1 WHERE price > 0", "the price in the ledger of a generation"),
            ("UPDATE generations SET cost = cost - 1 WHERE cost > 0", "UPDATE generations SET cost = cost + 1 WHERE cost > 0", "the cost in the ledger of a generation"),
            ("UPDATE usage_days SET images = images + 1", "UPDATE usage_days SET images = images - 1", "the usage of a project on a day (the first number that differs)"),
            ("UPDATE usage_day_models SET cost = cost + 1", "UPDATE usage_day_models SET cost = cost - 1", "the usage of a project on a day by model (its price, of any number that differs)"),
            (
                "UPDATE balances SET open_generations = open_generations + 1",
                "UPDATE balances SET open_generations = open_generations - 1",
                "the number of open generations of a project",
            ),
        ] {
            assert_eq!(desk.store.execute(harm).await.unwrap(), 1);
            let found = desk.books.verify().await.unwrap();
            assert!(found.iter().any(|discrepancy| discrepancy.what == finds), "{harm}: {found:?}");
            assert_eq!(desk.store.execute(mend).await.unwrap(), 1);
            assert_eq!(desk.books.verify().await, Ok(vec![]), "{mend}");
        }
        desk.books.finish(failed(open)).await.unwrap();
        desk.close().await;
    }
}
