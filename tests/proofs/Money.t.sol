// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "./../../contracts/interfaces/IEscrow.sol";
import {Proof} from "./support/Proof.sol";

/// @title Money into the escrow and out of it, by anyone
contract MoneyProof is Proof {
    function check_DepositCreditsTheCallerWithExactlyWhatArrived(address caller, uint128 amount, address other)
        external
    {
        vm.assume(other != caller && caller != address(escrow));
        (uint256 account, uint256 others) = (escrow.accountOf(caller), escrow.accountOf(other));
        uint256 balance = token.balanceOf(address(escrow));
        if (!_by(caller, abi.encodeCall(IEscrow.deposit, (amount)))) return;

        assertEq(escrow.accountOf(caller), account + amount);
        assertEq(escrow.accountOf(other), others);
        assertEq(token.balanceOf(address(escrow)), balance + amount);
    }

    function check_WithdrawTakesFromTheCallersAccountOnly(address caller, uint128 amount, address to, address other)
        external
    {
        vm.assume(other != caller);
        (uint256 account, uint256 others) = (escrow.accountOf(caller), escrow.accountOf(other));
        uint256 balance = token.balanceOf(address(escrow));
        if (!_by(caller, abi.encodeCall(IEscrow.withdraw, (amount, to)))) return;

        assertEq(escrow.accountOf(caller), account - amount);
        assertEq(escrow.accountOf(other), others);
        assertEq(token.balanceOf(address(escrow)), balance - amount);
    }

    function check_CollectSplitsEarningsExactlyAndPaysTheOwner(address caller, uint32 nodeId, uint40 time) external {
        vm.warp(time);
        (address settler, uint96 earnings) = escrow.nodeAccount(nodeId);
        address owner = _payee(nodeId);
        vm.assume(owner != address(escrow));
        (uint256 wallet, uint256 fees) = (token.balanceOf(owner), escrow.fees());
        if (!_collect(caller, nodeId)) return;

        (address stillSettler, uint96 left) = escrow.nodeAccount(nodeId);
        assertEq(left, 0);
        assertEq(stillSettler, settler);
        assertEq(token.balanceOf(owner) - wallet + (escrow.fees() - fees), earnings);
    }

    /// @dev 500 of 10,000 is the five percent; the division of the machine is the rounding.
    function check_CollectTakesAtMostFivePercentRoundedDown(address caller, uint32 nodeId, uint40 time) external {
        vm.warp(time);
        uint256 bps = escrow.feeBps();
        vm.assume(bps <= FEE_CEILING_BPS);
        (, uint96 earnings) = escrow.nodeAccount(nodeId);
        uint256 fees = escrow.fees();
        if (!_collect(caller, nodeId)) return;

        assertEq(escrow.fees() - fees, (earnings * bps) / 10_000);
    }

    function check_NoAnnouncementLiftsTheFeeAboveItsCeiling(address caller, uint16 bps, uint40 time, uint40 other)
        external
    {
        vm.assume(_feeAt(0) <= FEE_CEILING_BPS && _feeAt(type(uint40).max) <= FEE_CEILING_BPS);
        vm.assume(_feeAt(time) <= FEE_CEILING_BPS);
        _by(caller, abi.encodeCall(IEscrow.announceFee, (bps)));
        assertLe(_feeAt(other), FEE_CEILING_BPS);
    }

    function check_AFeeRisesSevenDaysAfterTheTreasurySaysSo(address caller, uint16 bps, uint40 time, uint40 later)
        external
    {
        vm.assume(later >= time && later < uint256(time) + 7 days);
        uint256 current = _feeAt(time);
        bool ok = _by(caller, abi.encodeCall(IEscrow.announceFee, (bps)));
        if (ok) assertEq(caller, TREASURY);
        if (ok) assertLe(_feeAt(later), current);
    }

    function check_FeesGoToTheTreasuryExactly(address caller) external {
        uint256 fees = escrow.fees();
        uint256 wallet = token.balanceOf(TREASURY);
        if (!_by(caller, abi.encodeCall(IEscrow.withdrawFees, ()))) return;

        assertEq(escrow.fees(), 0);
        assertEq(token.balanceOf(TREASURY), wallet + fees);
    }

    function check_OnlyTheRegistryNamesASettler(address caller, uint32 nodeId, address settler, uint32 asked) external {
        vm.assume(caller != address(registry));
        (address before,) = escrow.nodeAccount(asked);
        assertFalse(_by(caller, abi.encodeCall(IEscrow.setSettler, (nodeId, settler))));
        (address afterwards,) = escrow.nodeAccount(asked);
        assertEq(afterwards, before);
    }

    function _collect(address caller, uint32 nodeId) private returns (bool) {
        uint32[] memory ids = new uint32[](1);
        ids[0] = nodeId;
        return _by(caller, abi.encodeCall(IEscrow.collect, (ids)));
    }

    function _feeAt(uint40 time) private returns (uint256) {
        vm.warp(time);
        return escrow.feeBps();
    }
}
