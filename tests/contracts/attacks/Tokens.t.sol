// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {BlocklistToken} from "../../../contracts/mocks/BlocklistToken.sol";
import {FeeToken} from "../../../contracts/mocks/FeeToken.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {Reentrant} from "../../../contracts/mocks/Reentrant.sol";
import {SilentToken} from "../../../contracts/mocks/SilentToken.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {Attack} from "./Attack.sol";
import {HostileToken} from "./HostileToken.sol";

/// @title Attack 13: a token that takes a fee
contract FeeTokenAttack is Attack {
    function test_Attack13_ATokenWithAFeeIsRefused() public {
        bytes memory call = abi.encodeCall(IEscrow.deposit, (100));
        bytes4 error = IEscrow.Escrow_WrongDelta.selector;
        _refused(buyer.addr, address(escrow), call, error, "13: what did not arrive is not credited");
        vm.prank(provider);
        registry.register("");
        call = abi.encodeCall(INodeRegistry.stake, (100));
        error = INodeRegistry.NodeRegistry_WrongDelta.selector;
        _refused(provider, address(registry), call, error, "13: what did not arrive is not staked");
    }

    function _newToken() internal override returns (IERC20) {
        return new FeeToken();
    }

    function _serve(address, address, address) internal pure override returns (uint32) {
        return 1;
    }
}

/// @title Attacks 14, 16, 18, 19: tokens that count in odd ways
/// @notice 14: a plain ERC-20 is assumed, written down in `IEscrow`: nobody can protect a pool from a token that
/// shrinks at rest. 18: `decimals` is never read, so 0, 6 and 27 are the same.
contract HostileTokenAttack is Attack {
    HostileToken private _hostile;

    function test_Attack14_ARebaseCreditsNobody() public {
        _deposit(1000);
        _hostile.grow(address(escrow), 500);
        assertEq(escrow.accountOf(buyer.addr), 1000, "14: what a token grows by is nobody's");
        bytes memory call = abi.encodeCall(IEscrow.withdraw, (1001, stranger));
        bytes4 error = IEscrow.Escrow_AboveAccount.selector;
        _refused(buyer.addr, address(escrow), call, error, "14: what a token grows by cannot be withdrawn");

        _hostile.shrink(address(escrow));
        call = abi.encodeCall(IEscrow.deposit, (100));
        error = IEscrow.Escrow_WrongDelta.selector;
        _refused(buyer.addr, address(escrow), call, error, "14: a token that shrinks on the way in is refused");
    }

    function test_Attack16_ATokenThatSaysNoTakesNothing() public {
        _deposit(1000);
        _hostile.sayNo();
        vm.prank(buyer.addr);
        (bool ok,) = address(escrow).call(abi.encodeCall(IEscrow.withdraw, (400, stranger)));
        assertEq(escrow.accountOf(buyer.addr), 1000, "16: an account pays only what the token moved");
        assertFalse(ok, "16: a withdrawal that moved nothing is an error");
    }

    function test_Attack16_ATokenThatSaysNothingWorks() public {
        SilentToken silent = new SilentToken();
        escrow = _deployEscrow(address(silent), address(registry), treasury, MAX_SESSION);
        silent.faucet(buyer.addr, 1000);
        _works(buyer.addr, address(escrow), abi.encodeCall(IEscrow.deposit, (1000)), "16: silence is no refusal");
        bytes memory call = abi.encodeCall(IEscrow.withdraw, (400, stranger));
        _works(buyer.addr, address(escrow), call, "16: silence is no refusal on the way out");
        assertEq(silent.balanceOf(stranger), 400, "16: what a silent token moved has arrived");
    }

    function test_Attack18_ATokenThatRefusesNothingIsAskedForNothing() public {
        _hostile.refuseZero();
        (, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, 40);
        uint32[] memory ids = new uint32[](3);
        (ids[0], ids[1], ids[2]) = (7, nodeId, nodeId);
        bytes memory call = abi.encodeCall(IEscrow.collect, (ids));
        _works(stranger, address(escrow), call, "18: a node without earnings holds nobody up");
        assertEq(token.balanceOf(provider), FUNDS - MIN_STAKE + 40, "18: what was earned is paid");
        call = abi.encodeCall(IEscrow.withdrawFees, ());
        _works(stranger, address(escrow), call, "18: no fees are no transfer");

        _hostile.moveLess(1);
        call = abi.encodeCall(IEscrow.deposit, (100));
        bytes4 error = IEscrow.Escrow_WrongDelta.selector;
        _refused(buyer.addr, address(escrow), call, error, "18: less than asked is refused");
    }

    function test_Attack19_DonatedTokensAndForcedEtherMoveNoAccount() public {
        (, bytes32 sessionId) = _session(100);
        vm.prank(provider);
        assertTrue(token.transfer(address(escrow), 55));
        vm.deal(address(escrow), 1 ether);
        escrow.withdrawFees();
        assertEq(token.balanceOf(treasury), 0, "19: a donation is no fee");
        assertEq(escrow.accountOf(buyer.addr), 0, "19: a donation is no deposit");
        _settleOne(sessionId, 1, 101);
        assertEq(_earnings(nodeId), 0, "19: a donation does not raise a session");
        assertEq(token.balanceOf(address(escrow)), 155, "19: a donation stays");
    }

    function _newToken() internal override returns (IERC20) {
        _hostile = new HostileToken();
        return _hostile;
    }
}

/// @title Attack 17: a token that refuses receivers
contract BlocklistAttack is Attack {
    function test_Attack17_ABlockedReceiverBlocksNobodyElse() public {
        Actor memory blocked = _actor("blocked buyer");
        _fund(blocked.addr);
        vm.prank(blocked.addr);
        escrow.deposit(100);
        Open memory theirs = _terms(100);
        theirs.buyer = blocked.addr;
        vm.prank(blocked.addr);
        escrow.openOneSession(theirs, "");
        (Open memory ours, bytes32 sessionId) = _session(100);
        BlocklistToken(address(token)).blockAccount(blocked.addr);
        BlocklistToken(address(token)).blockAccount(provider);

        _settleOne(sessionId, 1, 40);
        assertEq(_earnings(nodeId), 40, "17: a blocked owner's node still earns");
        vm.warp(ours.expiresAt + GRACE);
        bytes memory call = abi.encodeCall(IEscrow.expire, (_two(theirs, ours)));
        _works(stranger, address(escrow), call, "17: a blocked buyer holds no other session up");
        call = abi.encodeCall(IEscrow.withdraw, (60, buyer.addr));
        _works(buyer.addr, address(escrow), call, "17: a blocked provider holds no buyer's money up");
        call = abi.encodeCall(IEscrow.withdraw, (100, stranger));
        _works(blocked.addr, address(escrow), call, "17: a blocked buyer can name another receiver");
    }

    function _newToken() internal override returns (IERC20) {
        return new BlocklistToken();
    }
}

/// @title Attacks 15 and 42: a token that calls back
contract HookTokenAttack is Attack {
    Reentrant private _thief;

    function setUp() public override {
        super.setUp();
        _thief = new Reentrant(HookToken(address(token)));
        _fund(address(_thief));
        _deposit(1000);
    }

    function test_Attack15_NoCallbackIsPaidTwice() public {
        uint32 id = _serve(address(_thief), nodeKey.addr, settler);
        Open memory terms = _terms(100);
        terms.nodeId = id;
        bytes32 sessionId = _openOne(terms);
        _settleOne(sessionId, 1, 100);
        uint256 before = token.balanceOf(address(_thief));
        bytes memory call = abi.encodeCall(IEscrow.collect, (_one(id)));
        _twice(address(escrow), call);
        assertEq(token.balanceOf(address(_thief)) - before, 100, "15: earnings are collected once");

        vm.prank(address(_thief));
        registry.requestUnstake(MIN_STAKE);
        vm.warp(vm.getBlockTimestamp() + UNSTAKE_DELAY);
        before = token.balanceOf(address(_thief));
        _twice(address(registry), abi.encodeCall(INodeRegistry.withdrawStake, ()));
        assertEq(token.balanceOf(address(_thief)) - before, MIN_STAKE, "15: stake is withdrawn once");
    }

    function test_Attack15_NoCallbackTakesAJurorsBalanceTwice() public {
        _serve(address(_thief), nodeKey.addr, settler);
        vm.prank(address(_thief));
        court.enrol(50);
        _enrolJurors(1);
        uint256 before = token.balanceOf(address(_thief));
        _twice(address(court), abi.encodeCall(ICourt.withdraw, (50)));
        assertEq(token.balanceOf(address(_thief)) - before, 50, "15: a balance is withdrawn once");
    }

    function test_Attack15_NoCallbackIsCreditedTwice() public {
        uint256 held = token.balanceOf(address(escrow));
        bytes memory call = abi.encodeCall(IEscrow.deposit, (100));
        bytes memory act = abi.encodeCall(Reentrant.act, (address(escrow), call));
        _thief.arm(address(escrow), call);
        (bool ok,) = address(_thief).call(act);
        assertFalse(ok, "15: two deposits do not count each other's tokens");
        _thief.arm(address(escrow), abi.encodeCall(IEscrow.withdraw, (100, address(_thief))));
        (ok,) = address(_thief).call(act);
        assertFalse(ok, "15: a credit is not spent before it is paid for");
        uint256 came = token.balanceOf(address(escrow)) - held;
        assertEq(escrow.accountOf(address(_thief)), came, "15: only what arrived is credited");
    }

    function test_Attack42_MoneyOnItsWayOutIsGone() public {
        vm.prank(address(_thief));
        escrow.deposit(100);
        bytes memory call = abi.encodeCall(IEscrow.withdraw, (100, address(_thief)));
        uint256 before = token.balanceOf(address(_thief));
        _twice(address(escrow), call);
        assertEq(token.balanceOf(address(_thief)) - before, 100, "42: an account is withdrawn once");

        vm.prank(address(_thief));
        escrow.deposit(100);
        Open memory terms = _terms(100);
        terms.buyer = address(_thief);
        _thief.arm(address(escrow), abi.encodeCall(IEscrow.openOneSession, (terms, "")));
        _act(address(escrow), call);
        assertFalse(_thief.reentered(), "42: what is on its way out cannot open a session");

        vm.prank(address(_thief));
        escrow.deposit(100);
        _thief.arm(address(escrow), abi.encodeCall(IEscrow.accountOf, (address(_thief))));
        _act(address(escrow), call);
        assertEq(abi.decode(_thief.answer(), (uint128)), 0, "42: a view shows no money that has left");
    }

    function _newToken() internal override returns (IERC20) {
        return new HookToken();
    }

    function _act(address target, bytes memory data) private {
        _thief.act(target, data);
    }

    function _twice(address target, bytes memory data) private {
        _thief.arm(target, data);
        _act(target, data);
    }
}
