// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {IReceiptReader} from "../../../contracts/interfaces/IReceiptReader.sol";
import {Claim, SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Jobs} from "../support/Jobs.sol";

contract ClaimTest is Jobs {
    /* WHAT IT DOES */

    function testFuzz_ClaimWaitsAndLocksAsMuchStake(uint128[3] memory amounts) public {
        uint128 sum = 0;
        for (uint256 i = 0; i < 3; ++i) {
            amounts[i] = uint128(bound(amounts[i], 1, 333));
            sum += amounts[i];
        }
        SignedReceipt[] memory jobs = _jobs(amounts);
        bytes32[] memory hashes = _hashesOf(jobs);
        vm.expectEmit(address(escrow));
        emit IEscrow.Claimed(id, 5, sum, START + CHALLENGE, hashes);
        vm.expectEmit(address(registry));
        emit INodeRegistry.StakeLocked(provider, sum);
        _claim(jobs);

        Claim memory expected =
            Claim(uint64(sum), 0, 5, 0, START + CHALLENGE, keccak256(abi.encodePacked(hashes)));
        assertEq(abi.encode(escrow.claimOf(id)), abi.encode(expected));
        assertEq(_locked(), sum);
        assertEq(_held(id).flags, 5);
        assertEq(_held(id).paid, 0);
        assertEq(_held(id).throughSeq, 0);
        assertEq(_earnings(nodeId), 0);
    }

    function test_ClaimTakesFreeJobsAlongWithOthers() public {
        SignedReceipt[] memory jobs = _jobs([uint128(0), 10, 0]);
        _claim(jobs);
        assertEq(escrow.claimOf(id).pending, 10);
        assertEq(escrow.claimOf(id).throughSeq, 5);
    }

    function test_ClaimDoesNotKeepTheBuyerFromToppingUp() public {
        _claim(1, 1000);
        _deposit(50);
        vm.prank(buyer.addr);
        escrow.topUp(terms, 1050, "");
        assertEq(_held(id).deposited, 1050);
        assertEq(_held(id).flags, 5);
    }

    /* WHO, AND WHEN */

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_ClaimRefusesEveryCallerButTheSettler(address caller) public {
        vm.assume(caller != settler);
        SignedReceipt[] memory jobs = _one(_job(1, 10));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotSettler.selector, caller, settler));
        vm.prank(caller);
        escrow.claim(terms, jobs);
    }

    function test_ClaimRefusesTermsOfNoSession() public {
        SignedReceipt[] memory jobs = _one(_job(1, 10));
        Open memory other = terms;
        other.buyer = stranger;
        bytes32 otherId = escrow.sessionIdOf(other);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_UnknownSession.selector, otherId));
        vm.prank(settler);
        escrow.claim(other, jobs);
    }

    function test_ClaimRefusesAClosedSession() public {
        escrow.close(terms, 0, _signClose(nodeKey, id, 0));
        _refuseClaim(_one(_job(1, 10)), abi.encodeWithSelector(IEscrow.Escrow_SessionClosed.selector, id));
    }

    function test_ClaimEndsWithGraceToTheSecond() public {
        uint256 end = terms.expiresAt + GRACE;
        vm.warp(end);
        _refuseClaim(_one(_job(1, 10)), abi.encodeWithSelector(IEscrow.Escrow_SessionOver.selector, end, end));
        vm.warp(end - 1);
        _claim(1, 10);
        assertEq(escrow.claimOf(id).finalAt, end - 1 + CHALLENGE);
    }

    /* ONE AT A TIME */

    function test_ClaimRefusesASecondWhileOneWaits() public {
        _claim(1, 10);
        bytes memory pending = abi.encodeWithSelector(IEscrow.Escrow_ClaimPending.selector, id);
        _refuseClaim(_one(_job(2, 10)), pending);
        vm.warp(START + CHALLENGE);
        _refuseClaim(_one(_job(2, 10)), pending);
        escrow.finalise(terms);
        _claim(2, 10);
        assertEq(escrow.claimOf(id).throughSeq, 2);
        assertEq(escrow.claimOf(id).finalAt, START + 2 * CHALLENGE);
    }

    function test_ClaimTakesASecondWhileTheFirstIsHeldWhole() public {
        bytes32[] memory first = _claim(3, 400);
        _hold(first, 0, 400);
        _refuseClaim(
            _one(_job(3, 1)), abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSeq.selector, 3, 3)
        );
        _refuseClaim(
            _one(_job(4, 601)), abi.encodeWithSelector(IEscrow.Escrow_AboveSession.selector, 601, 600)
        );
        _claim(4, 600);
        assertEq(escrow.claimOf(id).pending, 600);
        assertEq(escrow.claimOf(id).held, 400);
        assertEq(_locked(), 1000);
        _resolve(400, true);
        assertEq(_held(id).flags, 5);
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        assertEq(_held(id).paid, 1000);
        assertEq(_held(id).flags, 1);
        assertEq(_locked(), 0);
    }

    /* HOW MUCH */

    function test_ClaimOfWhatTheSessionHasLeftHoldsToTheAtom() public {
        _settleOne(id, 1, 300);
        _refuseClaim(
            _one(_job(2, 701)), abi.encodeWithSelector(IEscrow.Escrow_AboveSession.selector, 701, 700)
        );
        _claim(2, 700);
        assertEq(escrow.claimOf(id).pending, 700);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_ClaimNeverTruncatesASum(uint128 a, uint128 b) public {
        a = uint128(bound(a, type(uint64).max, type(uint128).max));
        SignedReceipt[] memory jobs = _jobs([a, b, 0]);
        _refuseClaim(
            jobs, abi.encodeWithSelector(IEscrow.Escrow_AboveSession.selector, uint256(a) + b, uint256(1000))
        );
    }

    function test_ClaimOfNothingIsRefused() public {
        _refuseClaim(new SignedReceipt[](0), abi.encodeWithSelector(IEscrow.Escrow_ZeroAmount.selector));
        _refuseClaim(_one(_job(1, 0)), abi.encodeWithSelector(IEscrow.Escrow_ZeroAmount.selector));
    }

    function test_ClaimNeedsFreeStakeToTheAtom() public {
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE - 500);
        _refuseClaim(
            _one(_job(1, 501)),
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveFreeStake.selector, 501, 500)
        );
        _claim(1, 500);
        assertEq(_locked(), 500);
    }

    function test_ClaimsOfSessionsShareTheStakeOfTheirProvider() public {
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE - 500);
        _claim(1, 300);
        vm.prank(provider);
        registry.stake(MIN_STAKE - 500);
        (Open memory second, bytes32 secondId) = _another();
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE - 500);
        (terms, id) = (second, secondId);
        _refuseClaim(
            _one(_job(1, 201)),
            abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveFreeStake.selector, 201, 200)
        );
        _claim(1, 200);
        assertEq(_locked(), 500);
    }

    function test_ClaimLeavesNothingOfARefusal() public {
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE);
        _refuseClaim(
            _one(_job(1, 1)), abi.encodeWithSelector(INodeRegistry.NodeRegistry_AboveFreeStake.selector, 1, 0)
        );
        assertEq(escrow.claimOf(id).pending, 0);
        assertEq(_held(id).flags, 1);
    }

    /* OF WHICH JOBS */

    function test_ClaimIsOfJobsBehindTheNewestVoucher() public {
        _settleOne(id, 5, 100);
        _refuseClaim(
            _one(_job(5, 10)), abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSeq.selector, 5, 5)
        );
        _claim(6, 10);
        assertEq(escrow.claimOf(id).throughSeq, 6);
    }

    function test_ClaimNeedsReceiptsOfTheSessionsEpoch() public {
        Actor memory second = _actor("second node key");
        vm.prank(provider);
        registry.rotateNodeKey(nodeId, second.addr, 0);
        _refuseClaim(
            _one(_job(second, 1, 10)),
            abi.encodeWithSelector(
                IReceiptReader.ReceiptReader_WrongSigner.selector, second.addr, nodeKey.addr
            )
        );
        _claim(1, 10);
    }

    function test_ClaimNeedsOrdersOfTheSessionsKey() public {
        SignedReceipt memory job = _job(1, 10);
        Actor memory real = key;
        key = buyer;
        job = _signed(nodeKey, job);
        key = real;
        _refuseClaim(
            _one(job),
            abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongSigner.selector, buyer.addr, key.addr)
        );
    }

    function test_ClaimRefusesJobsOfAnotherSession() public {
        bytes32 first = id;
        (, id) = _another();
        SignedReceipt[] memory jobs = _one(_job(1, 10));
        (bytes32 other, bytes memory reason) = (id, "");
        id = first;
        reason = abi.encodeWithSelector(IReceiptReader.ReceiptReader_WrongReference.selector, other, first);
        _refuseClaim(jobs, reason);
    }

    function test_ClaimRefusesJobsOfAnotherChain() public {
        SignedReceipt[] memory jobs = _one(_job(1, 10));
        vm.chainId(1);
        bytes32 here = escrow.sessionIdOf(terms);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_UnknownSession.selector, here));
        vm.prank(settler);
        escrow.claim(terms, jobs);
    }

    function _another() private returns (Open memory second, bytes32 secondId) {
        _deposit(HELD);
        second = _terms(HELD);
        second.salt = bytes32(uint256(2));
        secondId = _openOne(second);
    }
}
