// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Fixture} from "../support/Fixture.sol";

contract ExpireTest is Fixture {
    function testFuzz_ExpireReturnsTheRestWithoutAnybodysHelp(uint128 amount, uint128 paid, uint32 late) public {
        amount = uint128(bound(amount, 1, FUNDS));
        paid = uint128(bound(paid, 0, amount));
        (Open memory terms, bytes32 sessionId) = _session(amount);
        _settleOne(sessionId, 1, paid);
        vm.warp(uint256(terms.expiresAt) + GRACE + late);
        vm.expectEmit(address(escrow));
        emit IEscrow.SessionClosed(sessionId, paid, amount - paid);
        vm.prank(stranger);
        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), amount - paid);
        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), amount - paid);
    }

    function testFuzz_ExpireAndSettleNeverOverlap(uint32 offset) public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        uint256 end = uint256(terms.expiresAt) + GRACE;
        vm.warp(bound(offset, START, end + 10 days));
        bool over = vm.getBlockTimestamp() >= end;
        _settleOne(sessionId, 1, 10);
        assertEq(_held(sessionId).paid, over ? 0 : 10);
        if (!over) {
            vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TooEarly.selector, vm.getBlockTimestamp(), end));
        }
        escrow.expire(_one(terms));
        assertEq(_held(sessionId).flags, over ? 3 : 1);
    }

    function test_ExpireWorksToTheSecond() public {
        (Open memory terms,) = _session(100);
        uint256 end = terms.expiresAt + GRACE;
        vm.warp(end - 1);
        vm.expectRevert(abi.encodeWithSelector(IEscrow.Escrow_TooEarly.selector, end - 1, end));
        escrow.expire(_one(terms));
        vm.warp(end);
        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), 100);
    }

    function test_ExpirePassesOverUnknownAndClosedSessions() public {
        (Open memory closed, bytes32 sessionId) = _session(100);
        escrow.close(closed, 0, _signClose(nodeKey, sessionId, 0));
        Open[] memory list = new Open[](3);
        (list[0], list[1], list[2]) = (closed, _terms(5), _terms(60));
        list[2].salt = bytes32(uint256(9));
        _openOne(list[2]);
        vm.warp(list[2].expiresAt + GRACE);
        escrow.expire(list);
        assertEq(escrow.accountOf(buyer.addr), 100);
    }

    function test_ExpireNeedsNeitherRegistryNorToken() public {
        (Open memory terms,) = _session(100);
        vm.warp(terms.expiresAt + GRACE);
        vm.etch(address(registry), "");
        vm.etch(address(token), "");
        escrow.expire(_one(terms));
        assertEq(escrow.accountOf(buyer.addr), 100);
    }
}
