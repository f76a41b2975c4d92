// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {BlocklistToken} from "../../../contracts/mocks/BlocklistToken.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {Reentrant} from "../../../contracts/mocks/Reentrant.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Fixture} from "../support/Fixture.sol";

contract CollectTest is Fixture {
    function testFuzz_CollectSplitsEarningsExactly(uint128 paid, uint16 bps) public {
        paid = uint128(bound(paid, 1, FUNDS));
        bps = uint16(bound(bps, 0, 500));
        _feeWorks(bps);
        (, bytes32 sessionId) = _session(paid);
        _settleOne(sessionId, 1, paid);
        uint128 fee = (paid * bps) / 10_000;
        uint256 before = token.balanceOf(provider);
        vm.expectEmit(address(escrow));
        emit IEscrow.Collected(nodeId, provider, paid - fee, fee);
        vm.prank(stranger);
        escrow.collect(_one(nodeId));
        assertEq(token.balanceOf(provider) - before, paid - fee);
        assertEq(escrow.fees(), fee);
        assertEq(_earnings(nodeId), 0);
        assertEq(token.balanceOf(address(escrow)), fee);
    }

    function test_CollectWithoutEarningsIsANoOp() public {
        uint256 before = token.balanceOf(provider);
        uint32[] memory ids = new uint32[](3);
        (ids[0], ids[1], ids[2]) = (nodeId, 77, 0);
        escrow.collect(ids);
        assertEq(token.balanceOf(provider), before);
    }

    function test_CollectTheSameNodeTwiceInOneCallPaysOnce() public {
        (, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, 40);
        uint32[] memory ids = new uint32[](2);
        (ids[0], ids[1]) = (nodeId, nodeId);
        uint256 before = token.balanceOf(provider);
        escrow.collect(ids);
        assertEq(token.balanceOf(provider) - before, 40);
    }

    function test_CollectKeepsTheSettler() public {
        (, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, 40);
        escrow.collect(_one(nodeId));
        (address who,) = escrow.nodeAccount(nodeId);
        assertEq(who, settler);
    }

    /// hardhat-config: default.fuzz.runs = 1000
    function testFuzz_CollectInSmallPiecesNeverPaysMore(uint8 pieces) public {
        pieces = uint8(bound(pieces, 1, 20));
        _feeWorks(500);
        (, bytes32 sessionId) = _session(1000);
        uint256 before = token.balanceOf(provider);
        for (uint32 i = 1; i <= pieces; ++i) {
            _settleOne(sessionId, i, i * 7);
            escrow.collect(_one(nodeId));
        }
        uint256 got = token.balanceOf(provider) - before;
        assertEq(got + escrow.fees(), uint256(pieces) * 7);
    }

    function _feeWorks(uint16 bps) private {
        vm.prank(treasury);
        escrow.announceFee(bps);
        vm.warp(START + 7 days);
    }
}

/* ONE HOSTILE TOKEN EACH */

contract CollectWithHooksTest is Fixture {
    Reentrant private _owner;

    function _newToken() internal override returns (IERC20) {
        return new HookToken();
    }

    function _serve(address, address signer, address settler_) internal override returns (uint32) {
        _owner = new Reentrant(HookToken(address(token)));
        HookToken(address(token)).faucet(address(_owner), MIN_STAKE);
        _owner.act(address(token), abi.encodeCall(IERC20.approve, (address(registry), MIN_STAKE)));
        _owner.act(address(registry), abi.encodeCall(registry.register, ("")));
        _owner.act(address(registry), abi.encodeCall(registry.stake, (MIN_STAKE)));
        _owner.act(address(registry), abi.encodeCall(registry.addNode, (signer, 0, settler_, "")));
        return 1;
    }

    function test_CollectFromInsideCollectPaysOnce() public {
        (, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, 40);
        _owner.arm(address(escrow), abi.encodeCall(IEscrow.collect, (_one(nodeId))));
        escrow.collect(_one(nodeId));
        assertTrue(_owner.reentered());
        assertEq(token.balanceOf(address(_owner)), 40);
        assertEq(token.balanceOf(address(escrow)), 60);
    }
}

contract CollectWithBlocklistTest is Fixture {
    function _newToken() internal override returns (IERC20) {
        return new BlocklistToken();
    }

    function test_CollectOfARefusedOwnerBlocksNobodyElse() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, 40);
        BlocklistToken(address(token)).blockAccount(provider);
        vm.expectRevert(abi.encodeWithSelector(BlocklistToken.BlocklistToken_Blocked.selector, provider));
        escrow.collect(_one(nodeId));
        vm.warp(terms.expiresAt + GRACE);
        escrow.expire(_one(terms));
        vm.prank(buyer.addr);
        escrow.withdraw(60, stranger);
        assertEq(token.balanceOf(stranger), 60);
        assertEq(_earnings(nodeId), 40);
    }
}
