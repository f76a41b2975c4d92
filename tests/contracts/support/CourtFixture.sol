// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {ICourt} from "./../../../contracts/interfaces/ICourt.sol";
import {Provider} from "./../../../contracts/interfaces/INodeRegistry.sol";
import {CaseState, Evidence, Juror, Seat, Verdict} from "./../../../contracts/types/Cases.sol";
import {Claim, SignedReceipt} from "./../../../contracts/types/Claims.sol";
import {Messages, Offer, Open, Order, Receipt as JobReceipt} from "./../../../contracts/types/Messages.sol";
import {Session} from "./../../../contracts/types/Sessions.sol";
import {Fixture} from "./Fixture.sol";

/// @title A session with jobs, evidence about them, and a pool of jurors
abstract contract CourtFixture is Fixture {
    struct Job {
        Order order;
        JobReceipt receipt;
    }

    uint64 internal constant BOND = 30e6;
    uint64 internal constant FEE = 5e6;
    uint64 internal constant JUROR_DEPOSIT = 20e6;
    uint64 internal constant JUROR_BALANCE = 100e6;
    uint48 internal constant ANSWER = 6 hours;
    uint48 internal constant DRAW = 1 hours;
    uint48 internal constant COMMIT = 1 hours;
    uint48 internal constant REVEAL = 1 hours;
    uint256 internal constant FIRST_BLOCK = 1000;
    bytes32 internal constant EVIDENCE_HASH = keccak256("sealed evidence");
    bytes32 internal constant SALT = keccak256("salt of a verdict");

    address internal challenger = makeAddr("challenger");
    Open internal terms;
    bytes32 internal sessionId;
    address[] internal jurors;

    /// @dev Work can be disputed until here, and claimed until `CHALLENGE` earlier.
    function _end() internal view returns (uint256) {
        return uint256(terms.expiresAt) + GRACE + CHALLENGE;
    }

    function setUp() public virtual override {
        super.setUp();
        vm.roll(FIRST_BLOCK);
        _fund(challenger);
        _deposit(1000e6);
        terms = _terms(1000e6);
        terms.salt = keccak256("salt of a session");
        sessionId = _openOne(terms);
    }

    /* JURORS */

    function _seatJurors(uint256 count) internal {
        for (uint256 i = 0; i < count; ++i) {
            address who = makeAddr(string.concat("juror ", vm.toString(jurors.length)));
            jurors.push(who);
            _enrolNew(who, uint128(8 * MIN_STAKE));
        }
        vm.roll(vm.getBlockNumber() + 1);
    }

    function _enrolNew(address who, uint128 stake) internal {
        _fund(who);
        vm.startPrank(who);
        registry.register("");
        registry.stake(stake);
        court.enrol(JUROR_BALANCE);
        vm.stopPrank();
    }

    /* JOBS */

    function _offer() internal view returns (Offer memory offer) {
        (offer.nodeId, offer.modelId, offer.salt) = (nodeId, keccak256("model"), keccak256("salt of an offer"));
        offer.pricePerJob = 10e6;
        offer.priceInPerMillion = 1e6;
        offer.priceOutPerMillion = 3e6;
        offer.validUntil = START + 1 days;
    }

    /// @dev A job that charges `amount`, done in time.
    function _job(uint32 seq, uint128 amount) internal view returns (Job memory job) {
        job.order = Order({
            sessionId: sessionId,
            seq: seq,
            offerHash: _digest(Messages.hash(_offer())),
            requestHash: keccak256(abi.encode("request", seq)),
            maxAmount: 100e6,
            issuedAtMs: uint64(START) * 1000,
            deadlineMs: uint64(START) * 1000 + 60_000,
            replyKey: keccak256("reply key")
        });
        job.receipt = JobReceipt({
            orderHash: _digest(Messages.hash(job.order)),
            responseHash: keccak256(abi.encode("response", seq)),
            execHash: keccak256("annex"),
            unitsIn: 1000,
            unitsOut: 500,
            amount: amount,
            startedAtMs: uint64(START) * 1000 + 100,
            finishedAtMs: uint64(START) * 1000 + 5000,
            energyMillijoules: 900,
            status: 1
        });
    }

    function _receiptHash(Job memory job) internal view returns (bytes32) {
        return _digest(Messages.hash(job.receipt));
    }

    function _orderHash(Job memory job) internal view returns (bytes32) {
        return _digest(Messages.hash(job.order));
    }

    function _evidence(Job memory job) internal view returns (Evidence memory) {
        return _evidence(job, new bytes32[](0));
    }

    function _evidence(Job memory job, bytes32[] memory claimed) internal view returns (Evidence memory) {
        return Evidence(terms, job.order, job.receipt, _sign(nodeKey, Messages.hash(job.receipt)), claimed);
    }

    /// @dev Claims jobs 1 to `amounts.length` of these amounts.
    function _claim(uint128[] memory amounts) internal returns (Job[] memory jobs, bytes32[] memory hashes) {
        uint256 count = amounts.length;
        jobs = new Job[](count);
        hashes = new bytes32[](count);
        SignedReceipt[] memory signed = new SignedReceipt[](count);
        for (uint256 i = 0; i < count; ++i) {
            jobs[i] = _job(uint32(i + 1), amounts[i]);
            hashes[i] = _receiptHash(jobs[i]);
            signed[i] = _signed(jobs[i]);
        }
        vm.prank(settler);
        escrow.claim(terms, signed);
    }

    function _claimOne(uint128 amount) internal returns (Job memory job, bytes32[] memory hashes) {
        Job[] memory jobs;
        (jobs, hashes) = _claim(_amounts(amount));
        job = jobs[0];
    }

    function _claimAlone(Job memory job) internal {
        SignedReceipt[] memory signed = new SignedReceipt[](1);
        signed[0] = _signed(job);
        vm.prank(settler);
        escrow.claim(terms, signed);
    }

    function _signed(Job memory job) internal view returns (SignedReceipt memory) {
        bytes memory byKey = _sign(key, Messages.hash(job.order));
        return SignedReceipt(job.order, byKey, job.receipt, _sign(nodeKey, Messages.hash(job.receipt)));
    }

    /// @dev Another receipt for the same order, and the node's signature of it.
    function _second(Job memory job, uint128 amount)
        internal
        view
        returns (JobReceipt memory second, bytes memory signature)
    {
        second = _job(job.order.seq, amount).receipt;
        (second.orderHash, second.responseHash) = (job.receipt.orderHash, keccak256("another response"));
        signature = _sign(nodeKey, Messages.hash(second));
    }

    /// @dev To be used when the order was changed.
    function _relink(Job memory job) internal view {
        job.receipt.orderHash = _orderHash(job);
    }

    /* STEPS OF A CASE */

    function _demandOne(uint128 amount) internal returns (bytes32 caseId, Evidence memory evidence) {
        (Job memory job, bytes32[] memory hashes) = _claimOne(amount);
        evidence = _evidence(job, hashes);
        vm.prank(buyer.addr);
        caseId = court.demand(evidence);
    }

    /// @dev Pays job 1 by voucher and has somebody else challenge it.
    function _challengePaid(uint128 amount) internal returns (bytes32 caseId, Evidence memory evidence) {
        evidence = _evidence(_job(1, amount));
        _settleOne(sessionId, 1, amount);
        vm.prank(challenger);
        caseId = court.challenge(evidence, EVIDENCE_HASH);
    }

    /// @dev Claims job 1 and has the buyer challenge it.
    function _challengeClaimed(uint128 amount) internal returns (bytes32 caseId, Evidence memory evidence) {
        (Job memory job, bytes32[] memory hashes) = _claimOne(amount);
        evidence = _evidence(job, hashes);
        vm.prank(buyer.addr);
        caseId = court.challenge(evidence, EVIDENCE_HASH);
    }

    /// @dev Draws until the seats are filled or the case has ended.
    function _draw(bytes32 caseId) internal {
        vm.roll(court.caseOf(caseId).seedBlock + 1);
        for (uint256 i = 0; i < 8 && _state(caseId) == CaseState.Drawing; ++i) {
            court.advance(caseId);
        }
    }

    function _commitOne(bytes32 caseId, uint256 seat, Verdict verdict) internal {
        address who = court.seatsOf(caseId)[seat].juror;
        bytes32 commitment = court.commitmentOf(caseId, who, verdict, SALT);
        vm.prank(who);
        court.commit(caseId, commitment);
    }

    function _revealOne(bytes32 caseId, uint256 seat, Verdict verdict) internal {
        vm.prank(court.seatsOf(caseId)[seat].juror);
        court.reveal(caseId, verdict, SALT);
    }

    /// @dev All three seats commit and reveal; the last reveal counts.
    function _vote(bytes32 caseId, Verdict a, Verdict b, Verdict c) internal {
        Verdict[3] memory verdicts = [a, b, c];
        for (uint256 i = 0; i < 3; ++i) {
            _commitOne(caseId, i, verdicts[i]);
        }
        for (uint256 i = 0; i < 3; ++i) {
            _revealOne(caseId, i, verdicts[i]);
        }
    }

    function _advanceAt(bytes32 caseId, uint256 time) internal {
        vm.warp(time);
        court.advance(caseId);
    }

    /// @dev Ends the phase as early as anybody can.
    function _advanceWhenDue(bytes32 caseId) internal {
        _advanceAt(caseId, court.caseOf(caseId).phaseEnds);
    }

    /* READINGS */

    function _state(bytes32 caseId) internal view returns (CaseState) {
        return court.caseOf(caseId).state;
    }

    function _assertState(bytes32 caseId, CaseState state) internal view {
        assertEq(uint8(_state(caseId)), uint8(state));
    }

    function _balance(address who) internal view returns (uint64) {
        return court.jurorOf(who).balance;
    }

    function _seats(bytes32 caseId) internal view returns (address[3] memory who) {
        Seat[3] memory seats = court.seatsOf(caseId);
        for (uint256 i = 0; i < 3; ++i) {
            who[i] = seats[i].juror;
        }
    }

    function _stakeOf(address who) internal view returns (uint64) {
        return registry.provider(who).staked;
    }

    /// @dev To the atom: the court holds balances, bonds of cases that have not ended, and what is burned; the registry
    /// holds stake and what was slashed; the escrow holds the account, the session, earnings and fees.
    function _assertSolvent(uint256 openBonds) internal view {
        uint256 inCourt = court.burned() + openBonds * BOND + _balances();
        assertEq(token.balanceOf(address(court)), inCourt, "court: balance = its parts");
        assertEq(token.balanceOf(address(registry)), registry.slashed() + _stakes(), "registry: balance = its parts");
        Session memory held = _held(sessionId);
        Claim memory waiting = escrow.claimOf(sessionId);
        bool isClosed = held.flags & 2 != 0;
        uint256 inSession = isClosed ? waiting.pending + waiting.held : held.deposited - held.paid;
        uint256 inEscrow = escrow.accountOf(buyer.addr) + inSession + _earnings(nodeId) + escrow.fees();
        assertEq(token.balanceOf(address(escrow)), inEscrow, "escrow: balance = its parts");
        assertEq(registry.provider(provider).locked, waiting.pending + waiting.held, "registry: locked = claimed");
    }

    function _stakes() internal view returns (uint256 sum) {
        for (uint256 i = 0; i <= jurors.length; ++i) {
            Provider memory entry = registry.provider(i == jurors.length ? provider : jurors[i]);
            sum += uint256(entry.staked) + entry.unstaking;
        }
    }

    function _balances() internal view returns (uint256 sum) {
        for (uint256 i = 0; i < jurors.length; ++i) {
            Juror memory juror = court.jurorOf(jurors[i]);
            assertLe(juror.locked, juror.balance, "court: locked <= balance");
            sum += juror.balance;
        }
        sum += uint256(_balance(challenger)) + _balance(buyer.addr) + _balance(key.addr) + _balance(provider);
    }

    function _amounts(uint128 a) internal pure returns (uint128[] memory list) {
        list = new uint128[](1);
        list[0] = a;
    }

    function _amounts(uint128 a, uint128 b) internal pure returns (uint128[] memory list) {
        list = new uint128[](2);
        (list[0], list[1]) = (a, b);
    }

    function _error(bytes4 selector, uint256 got, uint256 limit) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(selector, got, limit);
    }

    function _wrongState(bytes32 caseId) internal pure returns (bytes memory) {
        return abi.encodeWithSelector(ICourt.Court_WrongState.selector, caseId);
    }
}
