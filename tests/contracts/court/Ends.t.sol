// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {CaseState, Evidence, Verdict} from "../../../contracts/types/Cases.sol";
import {CourtFixture} from "../support/CourtFixture.sol";

/// @title What every end of a judgement leaves everybody with, to the atom
contract EndsTest is CourtFixture {
    struct Purse {
        uint256 challenger;
        uint256 buyer;
        uint256 owner;
        uint256 burned;
        uint256 slashed;
        uint256 account;
        uint256 earnings;
    }

    function setUp() public override {
        super.setUp();
        _seatJurors(15);
        vm.prank(provider);
        registry.stake(100 * MIN_STAKE);
    }

    function testFuzz_UpheldPaysBuyerJurorsAndChallenger(uint64 amount, bool isClaimed, uint8 votes) public {
        amount = uint64(bound(amount, 1, 100e6));
        (bytes32 caseId,) = isClaimed ? _challengeClaimed(amount) : _challengePaid(amount);
        uint256 jurorsAgainst = _voteOf(caseId, votes, Verdict.Guilty, Verdict.NodeWithheld, Verdict.Clear);
        _assertState(caseId, CaseState.Upheld);

        uint256 fees = jurorsAgainst * FEE;
        uint256 slashed = 10 * uint256(amount);
        uint256 award = isClaimed ? amount : 2 * uint256(amount);
        uint256 repaid = fees < slashed - award ? fees : slashed - award;
        Purse memory want;
        want.challenger = isClaimed ? 0 : BOND - fees + repaid;
        want.buyer = isClaimed ? award + BOND - fees + repaid : award;
        want.burned = (3 - jurorsAgainst) * JUROR_DEPOSIT;
        want.slashed = slashed - award - repaid;
        want.earnings = isClaimed ? 0 : amount;
        _assertPurses(want);
        assertEq(_stakeOf(provider), 101 * MIN_STAKE - slashed);
        assertLe(award, slashed / 2);
    }

    function testFuzz_DismissedPaysJurorsAndTheAccused(uint64 amount, bool isClaimed, uint8 votes) public {
        amount = uint64(bound(amount, 1, 100e6));
        (bytes32 caseId,) = isClaimed ? _challengeClaimed(amount) : _challengePaid(amount);
        uint256 inFavour = _voteOf(caseId, votes, Verdict.Clear, Verdict.ChallengerWithheld, Verdict.Guilty);
        _assertState(caseId, CaseState.Dismissed);
        Purse memory want;
        want.owner = BOND - inFavour * FEE;
        want.burned = (3 - inFavour) * JUROR_DEPOSIT;
        want.earnings = amount;
        _assertPurses(want);
        assertEq(_held(sessionId).paid, amount);
        assertEq(_stakeOf(provider), 101 * MIN_STAKE);
    }

    function testFuzz_VoidReturnsJobAndBond(uint64 amount, bool isClaimed) public {
        amount = uint64(bound(amount, 1, 100e6));
        (bytes32 caseId,) = isClaimed ? _challengeClaimed(amount) : _challengePaid(amount);
        for (uint256 i = 0; i < 2; ++i) {
            _advanceWhenDue(caseId);
        }
        _assertState(caseId, CaseState.Void);
        Purse memory want;
        (want.challenger, want.buyer) = isClaimed ? (uint256(0), uint256(BOND)) : (uint256(BOND), uint256(0));
        want.earnings = isClaimed ? 0 : amount;
        _assertPurses(want);
    }

    /// @dev What the stake does not cover, nobody gets: the buyer comes first, at most half is not burned for it.
    function testFuzz_UpheldAgainstTooSmallAStakeSharesWhatIsThere(uint64 left, uint64 amount) public {
        left = uint64(bound(left, 0, 200e6));
        amount = uint64(bound(amount, 1, 100e6));
        (bytes32 caseId,) = _challengePaid(amount);
        _slashDownTo(left);
        uint256 before = registry.slashed();
        _draw(caseId);
        _vote(caseId, Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        uint256 slashed = 10 * uint256(amount) < left ? 10 * uint256(amount) : left;
        uint256 award = 2 * uint256(amount) < slashed / 2 ? 2 * uint256(amount) : slashed / 2;
        uint256 repaid = 3 * FEE < slashed - award ? 3 * FEE : slashed - award;
        assertEq(_balance(buyer.addr), award);
        assertEq(_balance(challenger), BOND - 3 * FEE + repaid);
        assertEq(registry.slashed(), before + slashed - award - repaid);
        assertEq(_stakeOf(provider), left - slashed);
        _assertSolvent(0);
    }

    function test_UpheldInAClosedSessionReturnsTheJobToTheAccount() public {
        vm.warp(terms.expiresAt + GRACE - 1);
        (bytes32 caseId,) = _challengeClaimed(10e6);
        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), 990e6);
        _draw(caseId);
        _vote(caseId, Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        assertEq(escrow.accountOf(buyer.addr), 1000e6);
        assertEq(_held(sessionId).flags, 3);
        _assertSolvent(0);
    }

    function test_UpheldOnceAVoucherHasPaidStillPunishes() public {
        (bytes32 caseId,) = _challengeClaimed(10e6);
        _settleOne(sessionId, 1, 7e6);
        _draw(caseId);
        _vote(caseId, Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        assertEq(_held(sessionId).paid, 7e6);
        assertEq(_balance(buyer.addr), BOND + 20e6);
        assertEq(registry.slashed(), 100e6 - 20e6 - 3 * FEE);
        _assertSolvent(0);
    }

    function test_DismissedInAClosedSessionPaysTheNode() public {
        vm.warp(terms.expiresAt + GRACE - 1);
        (bytes32 caseId,) = _challengeClaimed(10e6);
        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_one(terms));
        _draw(caseId);
        _vote(caseId, Verdict.Clear, Verdict.Clear, Verdict.Clear);
        assertEq(_earnings(nodeId), 10e6);
        assertEq(_held(sessionId).paid, 10e6);
        assertEq(escrow.accountOf(buyer.addr), 990e6);
        assertEq(_held(sessionId).flags, 3);
        _assertSolvent(0);
    }

    function test_EndIsTheEnd() public {
        (bytes32 caseId,) = _challengeClaimed(10e6);
        _draw(caseId);
        _vote(caseId, Verdict.Guilty, Verdict.Guilty, Verdict.Guilty);
        bytes32 before = keccak256(abi.encode(court.caseOf(caseId), registry.slashed(), _balance(buyer.addr)));
        vm.warp(START + 30 days);
        court.advance(caseId);
        assertEq(keccak256(abi.encode(court.caseOf(caseId), registry.slashed(), _balance(buyer.addr))), before);
        vm.expectRevert(_wrongState(caseId));
        court.commit(caseId, "sealed");
        vm.expectRevert(_wrongState(caseId));
        court.reveal(caseId, Verdict.Guilty, SALT);
        vm.prank(provider);
        vm.expectRevert(_wrongState(caseId));
        court.answer(caseId, "sealed");
    }

    /// @dev A provider that leaves right after the longest session opened meets the latest verdict about it.
    function test_UpheldAtTheLastMomentStillFindsStakeThatIsLeaving() public {
        _deposit(1000e6);
        terms = _terms(1000e6);
        terms.expiresAt = START + MAX_SESSION;
        sessionId = _openOne(terms);
        vm.prank(provider);
        registry.requestUnstake(101 * MIN_STAKE);
        vm.warp(terms.expiresAt + GRACE - 1);
        _settleOne(sessionId, 1, 10e6);
        vm.warp(_end() - 1);
        Evidence memory evidence = _evidence(_job(1, 10e6));
        vm.prank(challenger);
        bytes32 caseId = court.challenge(evidence, EVIDENCE_HASH);
        for (uint256 i = 0; i < 3; ++i) {
            vm.warp(court.caseOf(caseId).phaseEnds - 1);
            _draw(caseId);
            _advanceWhenDue(caseId);
        }
        vm.warp(court.caseOf(caseId).phaseEnds - 1);
        _assertState(caseId, CaseState.Drawing);
        _draw(caseId);
        vm.warp(court.caseOf(caseId).phaseEnds - 1);
        for (uint256 i = 0; i < 3; ++i) {
            _commitOne(caseId, i, Verdict.Guilty);
        }
        vm.warp(court.caseOf(caseId).phaseEnds - 1);
        for (uint256 i = 0; i < 3; ++i) {
            _revealOne(caseId, i, Verdict.Guilty);
        }
        _assertState(caseId, CaseState.Upheld);
        assertEq(registry.provider(provider).unstaking, 101 * MIN_STAKE - 100e6);
    }

    /// @dev Node, buyer, challenger and every juror are one: what they pay in is never less than what they get.
    function testFuzz_CollusionOfAllNeverGains(uint64 amount, bool isClaimed, uint8 end) public {
        amount = uint64(bound(amount, 1, 100e6));
        (bytes32 caseId,) = isClaimed ? _challengeClaimed(amount) : _challengePaid(amount);
        _draw(caseId);
        address[3] memory who = _seats(caseId);
        Verdict verdict = Verdict(bound(end, 1, 4));
        _vote(caseId, verdict, verdict, verdict);
        uint256 got = uint256(_balance(challenger)) + _balance(buyer.addr) + _balance(provider);
        for (uint256 i = 0; i < 3; ++i) {
            got += _balance(who[i]);
        }
        uint256 gone = 101 * MIN_STAKE - _stakeOf(provider);
        assertLe(got, BOND + 3 * JUROR_BALANCE + gone);
        assertEq(BOND + 3 * JUROR_BALANCE + gone - got, registry.slashed());
    }

    function _slashDownTo(uint64 left) private {
        uint64 staked = _stakeOf(provider);
        vm.prank(address(court));
        registry.slash(provider, staked - left);
    }

    /// @dev Three or two of the seats say one of two verdicts, the other says the third.
    function _voteOf(bytes32 caseId, uint8 votes, Verdict a, Verdict b, Verdict other) private returns (uint256) {
        _draw(caseId);
        bool isUnanimous = votes % 4 == 3;
        Verdict[3] memory said = [a, b, isUnanimous ? a : b];
        if (!isUnanimous) said[votes % 4] = other;
        _vote(caseId, said[0], said[1], said[2]);
        return isUnanimous ? 3 : 2;
    }

    function _assertPurses(Purse memory want) private view {
        assertEq(_balance(challenger), want.challenger, "challenger");
        assertEq(_balance(buyer.addr), want.buyer, "buyer");
        assertEq(_balance(provider), want.owner, "owner");
        assertEq(court.burned(), want.burned, "burned");
        assertEq(registry.slashed(), want.slashed, "slashed");
        assertEq(escrow.accountOf(buyer.addr), want.account, "account");
        assertEq(_earnings(nodeId), want.earnings, "earnings");
        for (uint256 i = 0; i < jurors.length; ++i) {
            assertEq(court.jurorOf(jurors[i]).locked, 0, "locked");
        }
        _assertSolvent(0);
    }
}
