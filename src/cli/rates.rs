//! `rates`: a deck is read and checked here, so that every bad line is known; the server checks again.

use std::path::Path;
use std::process::ExitCode;

use crate::charging::deck::{Deck, DeckErrors, LineError, MAX_BYTES};
use crate::cli::args::{Output, RatesCommand, Server};
use crate::cli::output::{Failure, Outcome, counted, fields, show};
use crate::cli::progress::Progress;
use crate::cli::{FAILURE, client, document};
use crate::proto::v1::{ActivateDeckRequest, ActivateDeckResponse, CheckDeckResponse, DeckProblem};

/// Carries out `rates`.
pub async fn run(command: RatesCommand, form: Output) -> Outcome {
    match command {
        RatesCommand::Check { file } => check(&file, form),
        RatesCommand::Activate { deck, file, server } => activate(deck, &file, &server, form).await,
    }
}

fn check(file: &Path, form: Output) -> Outcome {
    let answer = match Deck::parse(&read(file)?) {
        Ok(deck) => CheckDeckResponse {
            valid: true,
            row_count: deck.len().try_into().unwrap_or(u32::MAX),
            currency: deck.currency().to_owned(),
            ..CheckDeckResponse::default()
        },
        Err(errors) => problems(errors),
    };
    show(form, &answer, |answer| checked(file, answer))?;
    Ok(if answer.valid { ExitCode::SUCCESS } else { ExitCode::from(FAILURE) })
}

async fn activate(deck: String, file: &Path, server: &Server, form: Output) -> Outcome {
    let csv = read(file)?;
    if let Err(errors) = Deck::parse(&csv) {
        let list = checked(file, &problems(errors));
        return Err(Failure(list.lines().map(str::to_owned).collect()));
    }
    let request = ActivateDeckRequest { deck, csv: csv.into() };
    let mut accounts = client::accounts(server).await?;
    let progress = Progress::waiting("activating the deck");
    let answer = accounts.activate_deck(request).await?.into_inner();
    drop(progress);
    show(form, &answer, activated)?;
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    document::read_bytes(file, MAX_BYTES)
        .map_err(|error| Failure::new(format!("{}: {error}", file.display())))
}

fn problems(errors: DeckErrors) -> CheckDeckResponse {
    let problem = |LineError { line, reason }| DeckProblem {
        line: line.try_into().unwrap_or(u32::MAX),
        column: String::new(),
        reason,
    };
    CheckDeckResponse {
        problem_count: errors.total.try_into().unwrap_or(u32::MAX),
        problems: errors.errors.into_iter().map(problem).collect(),
        ..CheckDeckResponse::default()
    }
}

fn checked(file: &Path, answer: &CheckDeckResponse) -> String {
    let file = file.display();
    if answer.valid {
        let rows = counted(answer.row_count, "row");
        return format!("{file}: {rows} in {}, no bad line", answer.currency);
    }
    let mut text = String::new();
    for DeckProblem { line, reason, .. } in &answer.problems {
        text += &format!("{file}: line {line}: {reason}\n");
    }
    text + &format!("{file}: {} in all", counted(answer.problem_count, "bad line"))
}

fn activated(answer: &ActivateDeckResponse) -> String {
    fields([
        ("deck", answer.deck.clone()),
        ("version", answer.deck_version.clone()),
        ("rows", format!("{} in {}", answer.row_count, answer.currency)),
        ("reached", counted(answer.tenant_count, "tenant")),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bad_line_is_listed_with_its_number_and_reason() {
        let header = crate::charging::deck::HEADER.join(",");
        let csv = format!("{header}\n1,Here,NaN,0,60,60,USD,2026-01-01,,outbound\nx,y\n");
        let errors = Deck::parse(csv.as_bytes()).expect_err("two bad lines");
        let text = checked(Path::new("deck.csv"), &problems(errors));
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("deck.csv: line 2: rate_per_minute: expected"), "{text}");
        assert!(lines[1].starts_with("deck.csv: line 3: expected 10 "), "{text}");
        assert_eq!(lines[2], "deck.csv: 2 bad lines in all");
    }

    #[test]
    fn a_good_deck_is_summed_up() {
        let answer = CheckDeckResponse {
            valid: true,
            row_count: 2,
            currency: "USD".into(),
            ..CheckDeckResponse::default()
        };
        assert_eq!(checked(Path::new("a.csv"), &answer), "a.csv: 2 rows in USD, no bad line");
    }
}
