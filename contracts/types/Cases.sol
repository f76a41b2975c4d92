// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {Open, Order, Receipt} from "./Messages.sol";

// What goes to the court, and what it keeps of a case.

/// @notice Where a case stands.
enum CaseState {
    /// Never opened.
    None,
    /// The node has to hand in the response.
    Demanded,
    /// It did; the response can still be judged.
    Answered,
    /// Seats wait for jurors.
    Drawing,
    /// Jurors hand in sealed verdicts.
    Committing,
    /// Jurors open them.
    Revealing,
    /// Ended against the node.
    Upheld,
    /// Ended for the node.
    Dismissed,
    /// Ended without a verdict: the job is refunded, nobody is punished.
    Void
}

/// @notice What a juror found.
enum Verdict {
    /// Nothing yet.
    None,
    /// Not the work that was ordered.
    Guilty,
    /// The work that was ordered.
    Clear,
    /// The challenger did not hand the evidence over: counts for the node.
    ChallengerWithheld,
    /// The node did not: counts against it.
    NodeWithheld
}

/// @notice A billed job, as its node signed it.
/// @param terms The session's terms, as opened.
/// @param order The job's order.
/// @param receipt Its receipt.
/// @param signature Of the receipt, by the node's key of the session's epoch.
/// @param claimed Digests of all receipts of the pending claim that bills it. Empty: a voucher or an earlier claim did.
struct Evidence {
    Open terms;
    Order order;
    Receipt receipt;
    bytes signature;
    bytes32[] claimed;
}

/// @notice A dispute about one receipt.
/// @param challenger Who opened it, and gets the bond back unless a challenge of its own is dismissed.
/// @param state Where it stands.
/// @param round Drawings of fresh jurors so far, from 1; 0 before the first.
/// @param isRefilled Whether silent jurors of this round were replaced.
/// @param isReferred Whether the node put a demand before jurors.
/// @param isSham Whether it was a stranger's, and dismissed because the stranger showed nothing, or void.
/// @param phaseEnds Unix seconds at which the state can be moved on by anyone.
/// @param amount Atoms of the receipt.
/// @param held Atoms that the escrow holds back for it; once it has ended, those that went back to the buyer.
/// @param replaced Of the session's claim when they were held; once it differs, a voucher has paid the job.
/// @param seedBlock Block whose hash draws the jurors.
/// @param tries Draws made so far.
/// @param poolSize Jurors in the pool when the block was fixed.
/// @param owner Provider whose node signed.
/// @param nodeId That node.
/// @param buyer Gets what is refunded and awarded.
/// @param key Key of the session.
/// @param sessionId Session.
/// @param evidenceHash keccak-256 of the sealed evidence, as it was given to the jurors.
struct Case {
    address challenger;
    CaseState state;
    uint8 round;
    bool isRefilled;
    bool isReferred;
    bool isSham;
    uint48 phaseEnds;
    uint64 amount;
    uint64 held;
    uint32 replaced;
    uint64 seedBlock;
    uint32 tries;
    uint32 poolSize;
    address owner;
    uint32 nodeId;
    address buyer;
    address key;
    bytes32 sessionId;
    bytes32 evidenceHash;
}

/// @notice A juror's seat in a case.
/// @param juror 0: vacant.
/// @param verdict Once it is revealed.
/// @param commitment keccak-256 of case, round, juror, verdict and salt. 0: none yet.
struct Seat {
    address juror;
    Verdict verdict;
    bytes32 commitment;
}

/// @notice A juror's money in the court.
/// @param balance Atoms, deposits of seats included.
/// @param locked Atoms that stand behind seats.
/// @param place Position in the pool, from 1. 0: draws no seats.
/// @param weight Stake at the last enrolment; a seat takes no less.
/// @param since Block of the last enrolment; draws whose seed was fixed before pass it over.
struct Juror {
    uint64 balance;
    uint64 locked;
    uint32 place;
    uint64 weight;
    uint32 since;
}

/// @notice A fault that two signatures prove.
/// @param buyer Gets the award.
/// @param award Atoms not paid out yet.
/// @param isProven Whether it was; an order is proven against once.
struct Proof {
    address buyer;
    uint64 award;
    bool isProven;
}

/// @notice Amounts in atoms and windows in seconds that a court is built with.
/// @param bond What opening a case costs until it is upheld; at least three juror fees.
/// @param jurorFee What a juror of the majority earns.
/// @param jurorDeposit What a silent juror, or one of the minority, loses.
/// @param fullWeight Stake at which a juror's chance grows no further.
/// @param answerSeconds For a node to hand in a response.
/// @param drawSeconds For anyone to draw the jurors.
/// @param commitSeconds For jurors to decide.
/// @param revealSeconds For jurors to open their verdicts.
struct CourtRules {
    uint64 bond;
    uint64 jurorFee;
    uint64 jurorDeposit;
    uint64 fullWeight;
    uint32 answerSeconds;
    uint32 drawSeconds;
    uint32 commitSeconds;
    uint32 revealSeconds;
}
