// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Fixture} from "../support/Fixture.sol";

contract FeeTest is Fixture {
    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_FeeRiseWorksSevenDaysLater(uint16 bps, uint32 wait) public {
        bps = uint16(bound(bps, 1, 500));
        wait = uint32(bound(wait, 0, 30 days));
        vm.expectEmit(address(escrow));
        emit IEscrow.FeeAnnounced(bps, START + 7 days);
        _announce(bps);
        vm.warp(START + wait);
        assertEq(escrow.feeBps(), wait < 7 days ? 0 : bps);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_FeeFallWorksAtOnceAndCancelsARise(uint16 bps) public {
        bps = uint16(bound(bps, 0, 300));
        _announce(300);
        vm.warp(START + 7 days);
        _announce(500);
        vm.expectEmit(address(escrow));
        emit IEscrow.FeeAnnounced(bps, START + 7 days);
        _announce(bps);
        assertEq(escrow.feeBps(), bps);
        vm.warp(START + 30 days);
        assertEq(escrow.feeBps(), bps);
    }

    function test_FeeSecondRiseRestartsTheNotice() public {
        _announce(100);
        vm.warp(START + 6 days);
        _announce(200);
        vm.warp(START + 13 days - 1);
        assertEq(escrow.feeBps(), 0);
        vm.warp(START + 13 days);
        assertEq(escrow.feeBps(), 200);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_FeeRefusesMoreThanFivePercent(uint16 bps) public {
        bps = uint16(bound(bps, 501, type(uint16).max));
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_FeeTooHigh.selector, bps, 500));
        _announce(bps);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_FeeIsAnnouncedByTheTreasuryOnly(address caller) public {
        vm.assume(caller != treasury);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_NotTreasury.selector, caller, treasury));
        vm.prank(caller);
        escrow.announceFee(0);
    }

    function testFuzz_FeesGoToTheTreasuryWhoeverAsks(address caller, uint128 paid) public {
        paid = uint128(bound(paid, 20, FUNDS));
        _announce(500);
        vm.warp(START + 7 days);
        (, bytes32 sessionId) = _session(paid);
        _settleOne(sessionId, 1, paid);
        escrow.collect(_one(nodeId));
        uint128 fee = (paid * 500) / 10_000;
        vm.expectEmit(address(escrow));
        emit IEscrow.FeesWithdrawn(treasury, fee);
        vm.prank(caller);
        escrow.withdrawFees();
        assertEq(token.balanceOf(treasury), fee);
        assertEq(escrow.fees(), 0);
        escrow.withdrawFees();
        assertEq(token.balanceOf(treasury), fee);
        assertEq(escrow.feeBps(), 500);
    }

    function _announce(uint16 bps) private {
        vm.prank(treasury);
        escrow.announceFee(bps);
    }
}
