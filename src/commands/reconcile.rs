//! `imagegate reconcile`: our cost beside fal's billing events, row by row.

use std::collections::{BTreeMap, BTreeSet};

use clap::Args;
use imagegate::config::Config;
use imagegate::domain::{GenerationId, Money, Timestamp};
use imagegate::providers::{Bill, Bills, OddLine};
use imagegate::startup;
use imagegate::store::{BilledAttempt, Store};
use serde_json::json;
use uuid::Uuid;

use super::{Failure, Output, period};

/// How many generations are read at a time.
const PAGE: u32 = 2000;

/// Which part of the books to compare.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  imagegate reconcile --from 2026-11-01 --to 2026-12-01
  imagegate reconcile --from 2026-11-20T00:00:00Z --json

Ends with status 1 if a row differs or a line of fal's bill cannot be read. fal may bill minutes after a request has ended: leave the last hour out.")]
pub struct Arguments {
    /// From this day or moment (UTC) on, such as 2026-11-01 or 2026-11-01T12:00:00Z
    #[arg(long)]
    from: String,
    /// Up to this day or moment (UTC), not part of it; now if not given
    #[arg(long)]
    to: Option<String>,
}

/// How a request stands on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// The same amount.
    Agrees,
    /// Two amounts.
    Differs,
    /// We booked a cost that fal has not billed.
    NotBilled,
    /// fal billed a request that is not in our books.
    NotBooked,
    /// fal billed a request that is still open here.
    StillOpen,
    /// A line of fal's bill cannot be read.
    Unreadable,
}

impl Finding {
    const fn word(self) -> &'static str {
        match self {
            Self::Agrees => "agrees",
            Self::Differs => "differs",
            Self::NotBilled => "not billed",
            Self::NotBooked => "not booked",
            Self::StillOpen => "still open",
            Self::Unreadable => "unreadable",
        }
    }
}

/// One request on both sides.
#[derive(Debug)]
struct Row {
    request_id: String,
    generation: Option<Uuid>,
    endpoint: String,
    ours: Option<Money>,
    fals: Option<Money>,
    /// What is wrong with a line of fal's about it.
    problem: Option<String>,
}

impl Row {
    fn finding(&self) -> Finding {
        if self.problem.is_some() {
            return Finding::Unreadable;
        }
        match (self.ours, self.fals) {
            (ours, fals) if ours.unwrap_or_default() == fals.unwrap_or_default() => Finding::Agrees,
            (Some(_), Some(_)) => Finding::Differs,
            (_, None) => Finding::NotBilled,
            (None, Some(_)) if self.generation.is_none() => Finding::NotBooked,
            (None, Some(_)) => Finding::StillOpen,
        }
    }

    fn difference(&self) -> Money {
        let (ours, fals) = (self.ours.unwrap_or_default(), self.fals.unwrap_or_default());
        fals.checked_sub(ours).unwrap_or_default()
    }
}

/// Compares, and fails if something differs.
pub async fn run(config: &Config, arguments: &Arguments, output: Output) -> Result<(), Failure> {
    let (clock, _) = startup::clock_and_ids();
    let (from, before) = period(Some(&arguments.from), arguments.to.as_deref(), clock.now())?;
    let bill = startup::bill(config)?.ok_or("FAL_KEY is not set: there is nobody to ask what was billed")?;
    let store = startup::open_store(config).await?;
    let rows = compare(&store, bill.as_ref(), from, before).await?;
    let differing: Vec<&Row> = rows.iter().filter(|row| row.finding() != Finding::Agrees).collect();
    let ours: Money = rows.iter().filter_map(|row| row.ours).sum();
    let fals: Money = rows.iter().filter_map(|row| row.fals).sum();
    let view = json!({
        "object": "reconciliation",
        "from": from.rfc3339(),
        "to": before.rfc3339(),
        "requests": rows.len(),
        "agreeing": rows.len() - differing.len(),
        "booked_usd": ours,
        "billed_usd": fals,
        "differences": differing.iter().map(|row| json!({
            "finding": row.finding().word().replace(' ', "_"),
            "fal_request_id": row.request_id,
            "generation_id": row.generation.map(|id| GenerationId::from_uuid(id).to_string()),
            "endpoint": row.endpoint,
            "booked_usd": row.ours,
            "billed_usd": row.fals,
            "difference_usd": row.difference(),
            "problem": row.problem,
        })).collect::<Vec<_>>(),
    });
    let amount = |amount: Option<Money>| amount.map_or_else(|| "–".to_owned(), |amount| amount.to_string());
    output.table(
        &view,
        &["FINDING", "FAL REQUEST", "GENERATION", "ENDPOINT", "BOOKED USD", "BILLED USD", "DIFFERENCE"],
        &differing
            .iter()
            .map(|row| {
                vec![
                    match &row.problem {
                        Some(problem) => format!("unreadable: {problem}"),
                        None => row.finding().word().to_owned(),
                    },
                    row.request_id.clone(),
                    row.generation.map_or_else(|| "–".to_owned(), |id| GenerationId::from_uuid(id).to_string()),
                    row.endpoint.clone(),
                    amount(row.ours),
                    amount(row.fals),
                    row.difference().to_string(),
                ]
            })
            .collect::<Vec<_>>(),
        &[4, 5, 6],
        &format!("All {} requests agree.", rows.len()),
    )?;
    if differing.is_empty() {
        return Ok(());
    }
    let (count, all) = (differing.len(), rows.len());
    Err(format!("{count} of {all} requests differ: {ours} USD are booked, {fals} USD are billed").into())
}

/// Every request that either side knows in this time.
async fn compare(store: &Store, bill: &dyn Bill, from: Timestamp, before: Timestamp) -> Result<Vec<Row>, Failure> {
    let mut booked = BTreeMap::<String, BilledAttempt>::new();
    let mut after = Uuid::nil();
    loop {
        let (attempts, next) = store.settled_attempts(from, before, after, PAGE).await?;
        booked.extend(attempts.into_iter().map(|attempt| (attempt.provider_request_id.clone(), attempt)));
        match next {
            Some(next) => after = next,
            None => break,
        }
    }
    let mut bills = bill.between(from, before).await?;
    // What one side has just inside the window, the other may have just outside it.
    let odd = bills.odd.iter().filter_map(|line| line.request_id.clone());
    let told: BTreeSet<String> = bills.events.iter().map(|event| event.request_id.clone()).chain(odd).collect();
    let untold: Vec<String> = booked.keys().filter(|id| !told.contains(*id)).cloned().collect();
    bills.extend([bill.of_requests(&untold).await?]);
    let unbooked: Vec<String> = told.into_iter().filter(|id| !booked.contains_key(id)).collect();
    let elsewhere = store.attempts_of_requests(&unbooked).await?;
    booked.extend(elsewhere.into_iter().map(|attempt| (attempt.provider_request_id.clone(), attempt)));
    Ok(join(booked, bills))
}

fn join(booked: BTreeMap<String, BilledAttempt>, bills: Bills) -> Vec<Row> {
    let mut rows: BTreeMap<String, Row> = booked
        .into_iter()
        .map(|(request_id, attempt)| {
            // A submit that a fallback replaced has ended without a cost.
            let ours = attempt.cost.or(attempt.ended_at.map(|_| 0)).map(Money::from_nanos);
            let generation = Some(attempt.generation_id);
            let row = Row { request_id, generation, endpoint: attempt.endpoint, ours, fals: None, problem: None };
            (row.request_id.clone(), row)
        })
        .collect();
    let unknown = |request_id: String, endpoint: String| Row {
        request_id,
        generation: None,
        endpoint,
        ours: None,
        fals: None,
        problem: None,
    };
    for event in bills.events {
        let row = rows.entry(event.request_id.clone()).or_insert_with(|| unknown(event.request_id, event.endpoint));
        // A request may be billed in parts.
        row.fals = Some([row.fals.unwrap_or_default(), event.cost].into_iter().sum());
    }
    let mut nameless = Vec::new();
    for OddLine { request_id, problem } in bills.odd {
        let nowhere = || "–".to_owned();
        match request_id {
            Some(id) => {
                let row = rows.entry(id.clone()).or_insert_with(|| unknown(id, nowhere()));
                row.problem = Some(problem);
            }
            None => nameless.push(Row { problem: Some(problem), ..unknown(nowhere(), nowhere()) }),
        }
    }
    rows.into_values().chain(nameless).collect()
}

#[cfg(test)]
mod tests {
    use imagegate::providers::BillingEvent;

    use super::*;

    fn booked(id: &str, cost: Option<i64>, ended: bool) -> (String, BilledAttempt) {
        let attempt = BilledAttempt {
            provider_request_id: id.to_owned(),
            generation_id: Uuid::max(),
            endpoint: "fal-ai/flux/dev".to_owned(),
            cost,
            ended_at: ended.then_some(1),
        };
        (id.to_owned(), attempt)
    }

    fn odd(id: Option<&str>) -> OddLine {
        OddLine { request_id: id.map(str::to_owned), problem: "`cost_total` cannot be read".to_owned() }
    }

    fn billed(id: &str, nanos: i64) -> BillingEvent {
        BillingEvent {
            request_id: id.to_owned(),
            endpoint: "fal-ai/flux/dev".to_owned(),
            at: Timestamp::from_micros(1),
            cost: Money::from_nanos(nanos),
        }
    }

    #[test]
    fn each_request_is_found_as_it_stands_on_both_sides() {
        let ours = [
            booked("agrees", Some(25), true),
            booked("in parts", Some(25), true),
            booked("in equal parts", Some(25), true),
            booked("odd", Some(25), true),
            booked("differs", Some(25), true),
            booked("not billed", Some(25), true),
            booked("replaced", None, true),
            booked("replaced, billed", None, true),
            booked("open", None, false),
            booked("open, billed", None, false),
        ];
        let fals = [
            billed("agrees", 25),
            billed("in parts", 20),
            billed("in parts", 5),
            billed("in equal parts", 10),
            billed("in equal parts", 10),
            billed("in equal parts", 5),
            billed("odd", 25),
            billed("differs", 30),
            billed("replaced, billed", 3),
            billed("open, billed", 25),
            billed("not booked", 7),
        ];
        let odd = vec![odd(Some("odd")), odd(Some("odd and unknown")), odd(None)];
        let rows = join(BTreeMap::from(ours), Bills { events: Vec::from(fals), odd });
        let found: Vec<_> = rows
            .iter()
            .map(|row| (row.request_id.as_str(), row.finding().word(), row.difference()))
            .filter(|(_, word, _)| *word != "agrees")
            .collect();
        let nanos = Money::from_nanos;
        assert_eq!(
            found,
            [
                ("differs", "differs", nanos(5)),
                ("not billed", "not billed", nanos(-25)),
                ("not booked", "not booked", nanos(7)),
                ("odd", "unreadable", nanos(0)),
                ("odd and unknown", "unreadable", nanos(0)),
                ("open, billed", "still open", nanos(25)),
                ("replaced, billed", "differs", nanos(3)),
                ("–", "unreadable", nanos(0)),
            ]
        );
        assert_eq!(rows.len(), 13);
    }
}
