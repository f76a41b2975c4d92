// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Messages, Open, VoucherBatch} from "../../../contracts/types/Messages.sol";
import {SettleItem, SettleStatus} from "../../../contracts/types/Sessions.sol";
import {Jobs} from "../support/Jobs.sol";

/// @title How a claim that nobody disputes ends: finalised, or replaced by a voucher; what close and expire do with it
contract FinaliseTest is Jobs {
    /* FINALISED */

    function testFuzz_FinalisePaysWhoeverCalls(address caller, uint128 paid, uint128 amount) public {
        paid = uint128(bound(paid, 0, 999));
        amount = uint128(bound(amount, 1, 1000 - paid));
        _settleOne(id, 3, paid);
        _claim(7, amount);
        vm.warp(START + CHALLENGE);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimFinalised(id, 7, amount, paid + amount);
        vm.expectEmit(address(registry));
        emit INodeRegistry.StakeUnlocked(provider, amount);
        vm.prank(caller);
        escrow.finalise(terms);
        assertEq(_held(id).paid, paid + amount);
        assertEq(_held(id).throughSeq, 7);
        assertEq(_held(id).flags, 1);
        assertEq(_earnings(nodeId), paid + amount);
        assertEq(escrow.claimOf(id).pending, 0);
        assertEq(_locked(), 0);
    }

    function test_FinaliseWaitsForItsWindowToTheSecond() public {
        _claim(1, 10);
        vm.warp(START + CHALLENGE - 1);
        vm.expectRevert(
            abi.encodeWithSelector(
                IEscrow.Escrow_TooEarly.selector, START + CHALLENGE - 1, START + CHALLENGE
            )
        );
        escrow.finalise(terms);
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        assertEq(_earnings(nodeId), 10);
    }

    function test_FinaliseWorksOnce() public {
        _claim(1, 10);
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        vm.expectRevert(_noClaim());
        escrow.finalise(terms);
        assertEq(_earnings(nodeId), 10);
    }

    function test_FinaliseNeedsAClaimAndASession() public {
        vm.expectRevert(_noClaim());
        escrow.finalise(terms);
        Open memory other = terms;
        other.salt = 0;
        bytes32 otherId = escrow.sessionIdOf(other);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_UnknownSession.selector, otherId));
        escrow.finalise(other);
    }

    function test_FinalisePaysOnlyWhatIsNotHeld() public {
        bytes32[] memory hashes = _claim(_jobs([uint128(100), 200, 300]));
        _hold(hashes, 1, 200);
        vm.warp(START + CHALLENGE);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimFinalised(id, 5, 400, 400);
        escrow.finalise(terms);
        assertEq(_held(id).flags, 5);
        assertEq(_held(id).throughSeq, 5);
        assertEq(_locked(), 200);
        assertEq(escrow.claimOf(id).held, 200);
    }

    function test_FinaliseNeedsNoStakeThatIsStillThere() public {
        _claim(1, 10);
        vm.prank(address(court));
        registry.slash(provider, type(uint256).max);
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        assertEq(_earnings(nodeId), 10);
        assertEq(_locked(), 0);
    }

    /* EXPIRED AND CLOSED */

    function testFuzz_ExpireLeavesClaimedMoneyBehind(uint128 paid, uint128 amount) public {
        paid = uint128(bound(paid, 0, 999));
        amount = uint128(bound(amount, 1, 1000 - paid));
        vm.warp(terms.expiresAt + GRACE - 1);
        _settleOne(id, 3, paid);
        _claim(7, amount);
        vm.warp(terms.expiresAt + GRACE);
        vm.expectEmit(address(escrow));
        emit IEscrow.SessionClosed(id, paid, 1000 - paid - amount);
        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), 1000 - paid - amount);
        assertEq(_held(id).flags, 7);

        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), 1000 - paid - amount);
        vm.warp(escrow.claimOf(id).finalAt);
        escrow.finalise(terms);
        assertEq(_earnings(nodeId), paid + amount);
        assertEq(_held(id).flags, 3);
        assertEq(_held(id).paid + escrow.accountOf(buyer.addr), 1000);
    }

    function test_ExpireLeavesHeldMoneyBehindToo() public {
        bytes32[] memory hashes = _claim(_jobs([uint128(100), 200, 300]));
        _hold(hashes, 2, 300);
        _expire();
        assertEq(escrow.accountOf(buyer.addr), 400);
    }

    function test_CloseRefusesASessionWithAClaim() public {
        bytes32[] memory hashes = _claim(1, 10);
        bytes memory consent = _signClose(nodeKey, id, 0);
        bytes memory pending = abi.encodeWithSelector(IEscrow.Escrow_ClaimPending.selector, id);
        vm.expectRevert(pending);
        escrow.close(terms, 0, consent);
        _hold(hashes, 0, 10);
        vm.expectRevert(pending);
        escrow.close(terms, 0, consent);
        _resolve(10, true);
        escrow.close(terms, 10, _signClose(nodeKey, id, 10));
        assertEq(escrow.accountOf(buyer.addr), 990);
    }

    /* REPLACED BY A VOUCHER */

    function testFuzz_VoucherThatReachesAsFarTakesTheClaimsPlace(uint32 seq, uint128 amount) public {
        seq = uint32(bound(seq, 7, type(uint32).max));
        amount = uint128(bound(amount, 0, 1000));
        _claim(7, 500);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimReplaced(id, 500);
        vm.expectEmit(address(registry));
        emit INodeRegistry.StakeUnlocked(provider, 500);
        vm.expectEmit(address(escrow));
        emit IEscrow.VoucherSettled(id, seq, amount, ROOT);
        _settleOne(id, seq, amount);
        assertEq(_held(id).paid, amount);
        assertEq(_held(id).throughSeq, seq);
        assertEq(_held(id).flags, 1);
        assertEq(_earnings(nodeId), amount);
        assertEq(_locked(), 0);
        vm.expectRevert(_noClaim());
        escrow.finalise(terms);
    }

    function test_BatchTakesTheClaimsPlaceAndKeepsTheVoucher() public {
        _claim(7, 500);
        bytes memory batch = abi.encodePacked(bytes24(id), uint32(7), uint64(600));
        bytes32 digest = _digest(Messages.hash(VoucherBatch(keccak256(batch), ROOT)));
        (bytes32 r, bytes32 vs) = vm.signCompact(key.secret, digest);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimReplaced(bytes32(bytes24(id)), 500);
        vm.expectEmit(address(escrow));
        emit IEscrow.BatchSettled(key.addr, ROOT, batch);
        vm.prank(settler);
        escrow.settleBatch(batch, ROOT, r, vs);
        assertEq(_held(id).paid, 600);
        assertEq(_held(id).throughSeq, 7);
        assertEq(_earnings(nodeId), 600);
        assertEq(_locked(), 0);
    }

    function test_VoucherThatReachesLessFarWaitsForTheClaim() public {
        _claim(7, 500);
        _expectSkip(id, SettleStatus.ClaimPending);
        _settleOne(id, 6, 600);
        assertEq(_earnings(nodeId), 0);
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        _settleOne(id, 8, 600);
        assertEq(_earnings(nodeId), 600);
    }

    function test_VoucherOfAClaimedSessionObeysEveryOtherRule() public {
        _settleOne(id, 2, 100);
        _claim(7, 500);
        _expectSkip(id, SettleStatus.AboveDeposit);
        _settleOne(id, 7, 1001);
        _expectSkip(id, SettleStatus.Stale);
        _settleOne(id, 7, 99);
        _expectSkip(id, SettleStatus.NotSettler);
        SettleItem[] memory items = _one(_item(key, id, 7, 600));
        vm.prank(stranger);
        escrow.settle(items);
        vm.warp(terms.expiresAt + GRACE);
        _expectSkip(id, SettleStatus.Expired);
        _settleOne(id, 7, 600);
        escrow.expire(_one(terms));
        _expectSkip(id, SettleStatus.Closed);
        _settleOne(id, 7, 600);
        assertEq(escrow.claimOf(id).pending, 500);
        assertEq(_locked(), 500);
    }

    function test_VoucherTakesThePlaceOfWhatIsHeldToo() public {
        bytes32[] memory hashes = _claim(_jobs([uint128(100), 200, 300]));
        _hold(hashes, 1, 200);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimReplaced(id, 600);
        _settleOne(id, 5, 800);
        assertEq(_held(id).flags, 1);
        assertEq(_held(id).paid, 800);
        assertEq(_locked(), 0);
        assertEq(escrow.claimOf(id).held, 0);
        assertEq(escrow.claimOf(id).replaced, 1);
    }

    function test_VoucherSettlesAgainFastOnceTheClaimIsOver() public {
        _claim(7, 500);
        _settleOne(id, 7, 500);
        _settleOne(id, 8, 600);
        assertEq(_earnings(nodeId), 600);
        _claim(9, 400);
        assertEq(escrow.claimOf(id).pending, 400);
    }
}
