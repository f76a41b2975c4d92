// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {stdError} from "forge-std/StdError.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {Jobs} from "../support/Jobs.sol";

/// @title What the court does with a claim: hold, resolve
contract HoldTest is Jobs {
    bytes32[] private _hashes;

    function setUp() public override {
        super.setUp();
        _hashes = _claim(_jobs([uint128(100), 200, 300]));
    }

    /* HOLD */

    function test_HoldTakesAReceiptOutOfTheClaim() public {
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimHeld(id, _hashes[1], 200);
        _hold(_hashes, 1, 200);
        assertEq(escrow.claimOf(id).pending, 400);
        assertEq(escrow.claimOf(id).held, 200);
        assertEq(_held(id).throughSeq, 0);
        assertEq(_locked(), 600);
    }

    function test_HoldOfTheLastReceiptEndsTheClaimsOrders() public {
        _hold(_hashes, 0, 100);
        _hold(_hashes, 2, 300);
        assertEq(_held(id).throughSeq, 0);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimHeld(id, _hashes[1], 200);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimFinalised(id, 5, 0, 0);
        _hold(_hashes, 1, 200);
        assertEq(_held(id).throughSeq, 5);
        assertEq(_held(id).flags, 5);
        vm.expectRevert(_noClaim());
        escrow.finalise(terms);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_HoldAndResolveAreForTheCourtOnly(address caller) public {
        vm.assume(caller != address(court));
        bytes memory reason =
            abi.encodeWithSelector(IEscrow.Escrow_NotCourt.selector, caller, address(court));
        vm.startPrank(caller);
        vm.expectRevert(reason);
        escrow.hold(id, key.addr, _hashes[0], 100, _hashes);
        vm.expectRevert(reason);
        escrow.resolve(id, key.addr, buyer.addr, 0, true);
    }

    function test_HoldEndsWithTheWindowToTheSecond() public {
        vm.warp(START + CHALLENGE);
        vm.expectRevert(_noClaim());
        _hold(_hashes, 0, 100);
        vm.warp(START + CHALLENGE - 1);
        _hold(_hashes, 0, 100);
    }

    function test_HoldNeedsAClaimThatWaits() public {
        _settleOne(id, 5, 600);
        vm.expectRevert(_noClaim());
        _hold(_hashes, 0, 100);
    }

    function test_HoldRefusesAReceiptThatIsNotOfTheClaim() public {
        bytes32[] memory others = _hashesOf(_jobs([uint128(100), 200, 301]));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotClaimed.selector, others[2]));
        vm.prank(address(court));
        escrow.hold(id, key.addr, others[2], 301, _hashes);
    }

    function test_HoldRefusesAListThatIsNotTheClaims() public {
        bytes32[] memory list = _hashes;
        list[2] = list[1];
        _refuseHold(list);
        _refuseHold(new bytes32[](0));
        bytes32[] memory longer = new bytes32[](4);
        (longer[0], longer[1], longer[2]) = (_hashes[0], _hashes[1], _hashes[2]);
        _refuseHold(longer);
    }

    function test_HoldNeverTakesMoreThanWaits() public {
        vm.expectRevert(stdError.arithmeticError);
        _hold(_hashes, 0, 601);
    }

    /* RESOLVE */

    function test_ResolvePaysTheNode() public {
        _hold(_hashes, 1, 200);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimResolved(id, 200, true);
        vm.expectEmit(address(registry));
        emit INodeRegistry.StakeUnlocked(provider, 200);
        _resolve(200, true);
        assertEq(_earnings(nodeId), 200);
        assertEq(_held(id).paid, 200);
        assertEq(_held(id).flags, 5);
        assertEq(_locked(), 400);
    }

    function test_ResolveForTheBuyerLeavesTheMoneyInAnOpenSession() public {
        _hold(_hashes, 1, 200);
        vm.expectEmit(address(escrow));
        emit IEscrow.ClaimResolved(id, 200, false);
        _resolve(200, false);
        assertEq(escrow.accountOf(buyer.addr), 0);
        vm.warp(START + CHALLENGE);
        escrow.finalise(terms);
        assertEq(_held(id).flags, 1);
        _settleOne(id, 6, 1000);
        assertEq(_earnings(nodeId), 1000);
    }

    function test_ResolveForTheBuyerReturnsTheMoneyOfAClosedSession() public {
        _hold(_hashes, 1, 200);
        _expire();
        assertEq(escrow.accountOf(buyer.addr), 400);
        _resolve(200, false);
        assertEq(escrow.accountOf(buyer.addr), 600);
        assertEq(_held(id).flags, 7);
        escrow.finalise(terms);
        assertEq(_held(id).flags, 3);
        assertEq(_earnings(nodeId), 400);
    }

    function test_ResolveForTheNodePaysFromAClosedSession() public {
        _hold(_hashes, 1, 200);
        _expire();
        _resolve(200, true);
        assertEq(_earnings(nodeId), 200);
        assertEq(escrow.accountOf(buyer.addr), 400);
    }

    function test_ResolveInPartsEndsWithTheLast() public {
        _hold(_hashes, 0, 100);
        _hold(_hashes, 1, 200);
        _hold(_hashes, 2, 300);
        _resolve(300, false);
        _resolve(100, true);
        assertEq(_held(id).flags, 5);
        _resolve(200, true);
        assertEq(_held(id).flags, 1);
        assertEq(_held(id).paid, 300);
        assertEq(_locked(), 0);
    }

    function test_ResolveNeverDecidesAboutMoreThanIsHeld() public {
        _hold(_hashes, 1, 200);
        vm.expectRevert(stdError.arithmeticError);
        _resolve(201, false);
    }

    /* ALL OF IT */

    function testFuzz_ClaimsOfAnyFateAddUp(uint8 disputed, uint8 verdicts, bool expiresFirst) public {
        _holdAny(disputed);
        if (expiresFirst) _expire();
        vm.warp(vm.getBlockTimestamp() + CHALLENGE);
        if (disputed & 7 != 7) escrow.finalise(terms);
        uint256 paid = 0;
        for (uint256 i = 0; i < 3; ++i) {
            bool isHeld = disputed & (1 << i) != 0;
            bool isPaid = verdicts & (1 << i) != 0;
            if (isHeld) _resolve(uint64(100 * (i + 1)), isPaid);
            if (!isHeld || isPaid) paid += uint64(100 * (i + 1));
        }
        if (!expiresFirst) _expire();
        _assertOver(paid);
    }

    function testFuzz_AVoucherTakesThePlaceOfWhateverIsHeld(uint8 disputed) public {
        _holdAny(disputed);
        _settleOne(id, 6, 50);
        assertEq(_held(id).flags, 1);
        _expire();
        _assertOver(50);
    }

    function _holdAny(uint8 disputed) private {
        for (uint256 i = 0; i < 3; ++i) {
            if (disputed & (1 << i) != 0) _hold(_hashes, i, uint64(100 * (i + 1)));
        }
    }

    function _assertOver(uint256 paid) private view {
        assertEq(_earnings(nodeId), paid);
        assertEq(_held(id).paid, paid);
        assertEq(escrow.accountOf(buyer.addr), 1000 - paid);
        assertEq(_held(id).flags, 3);
        assertEq(_locked(), 0);
    }

    function _refuseHold(bytes32[] memory list) private {
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotClaimed.selector, _hashes[0]));
        vm.prank(address(court));
        escrow.hold(id, key.addr, _hashes[0], 100, list);
    }
}
