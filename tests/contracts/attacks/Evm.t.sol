// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.30;

import {IERC20Permit} from "@openzeppelin/contracts/token/ERC20/extensions/IERC20Permit.sol";
import {IERC20} from "@openzeppelin/contracts/token/ERC20/IERC20.sol";
import {MessageHashUtils} from "@openzeppelin/contracts/utils/cryptography/MessageHashUtils.sol";
import {ICourt} from "../../../contracts/interfaces/ICourt.sol";
import {IEscrow} from "../../../contracts/interfaces/IEscrow.sol";
import {INodeRegistry} from "../../../contracts/interfaces/INodeRegistry.sol";
import {HookToken} from "../../../contracts/mocks/HookToken.sol";
import {CaseState} from "../../../contracts/types/Cases.sol";
import {SignedReceipt} from "../../../contracts/types/Claims.sol";
import {Open} from "../../../contracts/types/Messages.sol";
import {SettleItem} from "../../../contracts/types/Sessions.sol";
import {Attack} from "./Attack.sol";
import {Phisher, Refuser} from "./Wallets.sol";

/// @title Attacks 43 to 52: the machine and its operators (42 is in `Tokens.t.sol`)
/// @notice What cannot be attacked because it is not there is shown to be absent: no proxy and no initialiser (48), no
/// pause (50), no ether and no multicall (51), no `ORIGIN` (52). That no other function exists than those listed in
/// `surface.toml` is checked beside these tests, on the ABI.
contract EvmAttack is Attack {
    uint8 private constant _ORIGIN = 0x32;
    uint8 private constant _CALLCODE = 0xf2;
    uint8 private constant _DELEGATECALL = 0xf4;
    uint8 private constant _SELFDESTRUCT = 0xff;

    function test_Attack43_SecondsOfTheClockSkipNoWindow() public {
        assertEq(_escrowWith(15), address(0), "43: a window that a proposer can skip is refused");
        assertNotEq(_escrowWith(60), address(0), "43: a minute is enough");
        (Open memory terms,) = _session(100);
        _claim(terms, _job(terms, 1, 40));
        vm.warp(vm.getBlockTimestamp() + 15);
        bytes memory call = abi.encodeCall(IEscrow.finalise, (terms));
        bytes4 error = IEscrow.Escrow_TooEarly.selector;
        _refused(settler, address(escrow), call, error, "43: 15 seconds do not make a claim final");
    }

    function test_Attack44_WhoeverIsFasterChangesNothing() public {
        bytes32 permitType =
            keccak256("Permit(address owner,address spender,uint256 value,uint256 nonce,uint256 deadline)");
        bytes32 structHash = keccak256(abi.encode(permitType, buyer.addr, address(escrow), 70, 0, START + 1));
        vm.prank(buyer.addr);
        assertTrue(token.approve(address(escrow), 0));
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(
            buyer.secret,
            MessageHashUtils.toTypedDataHash(IERC20Permit(address(token)).DOMAIN_SEPARATOR(), structHash)
        );
        vm.prank(stranger);
        IERC20Permit(address(token)).permit(buyer.addr, address(escrow), 70, START + 1, v, r, s);
        bytes memory call = abi.encodeCall(IEscrow.depositWithPermit, (70, START + 1, v, r, s));
        _works(buyer.addr, address(escrow), call, "44: a permit that somebody spent first still deposits");

        // Whoever sends the signed terms first opens the same session for the same node.
        Open memory terms = _terms(70);
        bytes memory signature = _signOpen(buyer, terms);
        vm.prank(stranger);
        escrow.openOneSession(terms, signature);
        call = abi.encodeCall(IEscrow.openOneSession, (terms, signature));
        _works(buyer.addr, address(escrow), call, "44: a session that somebody opened first is open");
        assertEq(_held(escrow.sessionIdOf(terms)).deposited, 70, "44: it is the same session");
    }

    function test_Attack45_NoCallGrowsWithWhatOthersDid() public {
        (, bytes32 sessionId) = _session(100);
        uint256 few = _gasOfSettling(sessionId, 1);
        assertEq(_gasOfSettling(sessionId, 10_000), few, "45: settling costs the same for 1 and for 10,000 jobs");

        vm.startPrank(provider);
        for (uint256 i = 1; i < 100; ++i) {
            registry.addNode(nodeKey.addr, 0, settler, "");
        }
        vm.stopPrank();
        bytes memory call = abi.encodeCall(INodeRegistry.addNode, (nodeKey.addr, 0, settler, ""));
        bytes4 error = INodeRegistry.NodeRegistry_TooManyNodes.selector;
        _refused(provider, address(registry), call, error, "45: an owner's nodes have an end, so a penalty's gas has");
        (Open memory terms,) = _session(100, 2);
        call = _proofOfTwo(terms, _job(terms, 1, 10));
        uint256 before = gasleft();
        (bool ok,) = address(court).call{gas: 3_000_000}(call);
        assertTrue(ok, "45: an owner of 100 nodes is punished in one call");
        assertLt(before - gasleft(), 3_000_000, "45: for a tenth of a block");
    }

    function test_Attack46_OneBadItemSpoilsNoOther() public {
        (, bytes32 sessionId) = _session(100);
        SettleItem memory good = _item(key, sessionId, 1, 40);
        SettleItem memory bad = _item(key, sessionId, 9, 90);
        bad.vs = bytes32(uint256(bad.vs) ^ 1);
        SettleItem memory empty;
        SettleItem[] memory items = new SettleItem[](4);
        (items[0], items[1], items[2]) = (bad, empty, _item(_otherKey(), sessionId, 2, 50));
        items[3] = good;
        bytes memory call = abi.encodeCall(IEscrow.settle, (items));
        _works(settler, address(escrow), call, "46: a bad item does not revert the others");
        assertEq(_earnings(nodeId), 40, "46: the good item is paid");

        // Too little gas for all is an error, never half of a settlement.
        items[3] = _item(key, sessionId, 2, 80);
        vm.prank(settler);
        (bool ok,) = address(escrow).call{gas: 40_000}(abi.encodeCall(IEscrow.settle, (items)));
        assertTrue(!ok || _earnings(nodeId) == 80, "46: gas that runs out settles nothing in part");
    }

    function test_Attack48_NobodyComesFirstOrBindsAgain() public {
        bytes memory arguments = abi.encode(token, escrow, MIN_STAKE, UNSTAKE_DELAY, DISPUTE);
        address rogue = _create("NodeRegistry.sol:NodeRegistry", arguments);
        assertEq(rogue, address(0), "48: an escrow has one registry, named when it was built");
        rogue = _create("Court.sol:Court", abi.encode(escrow, _courtRules()));
        assertEq(rogue, address(0), "48: an escrow has one court, named when it was built");
        address[4] memory all = [address(escrow), address(registry), address(court), address(escrow.RECEIPTS())];
        for (uint256 i = 0; i < all.length; ++i) {
            assertFalse(_has(all[i].code, _DELEGATECALL), "48: no contract runs another's code");
            assertFalse(_has(all[i].code, _CALLCODE), "48: nor as its own");
            assertFalse(_has(all[i].code, _SELFDESTRUCT), "48: no contract can go away");
        }
    }

    function test_Attack49_TheOperatorHasNoPowerOverMoney() public {
        (, bytes32 sessionId) = _session(100);
        _settleOne(sessionId, 1, 50);
        vm.prank(treasury);
        escrow.announceFee(500);
        assertEq(escrow.feeBps(), 0, "49: a rise is announced a week ahead");
        escrow.collect(_one(nodeId));
        assertEq(token.balanceOf(provider), FUNDS - MIN_STAKE + 50, "49: until then the old fee counts");
        bytes memory call = abi.encodeCall(IEscrow.announceFee, (501));
        _refused(treasury, address(escrow), call, IEscrow.Escrow_FeeTooHigh.selector, "49: the fee has a ceiling");
        call = abi.encodeCall(IEscrow.announceFee, (1));
        _refused(stranger, address(escrow), call, IEscrow.Escrow_NotTreasury.selector, "49: only the treasury does");
        _refusedToTreasury();
        assertEq(_held(sessionId).deposited, 100, "49: no call of the operator touched a session");
    }

    function test_Attack50_NothingStopsMoneyOnItsWayOut() public {
        (Open memory terms, bytes32 sessionId) = _session(100);
        _deposit(30);
        _settleOne(sessionId, 1, 40);
        // All that an operator or a provider can do against it.
        vm.prank(treasury);
        escrow.announceFee(500);
        vm.prank(provider);
        registry.requestUnstake(MIN_STAKE);
        bytes memory call = abi.encodeCall(IEscrow.withdraw, (30, buyer.addr));
        _works(buyer.addr, address(escrow), call, "50: an account can always be withdrawn");
        call = abi.encodeCall(IEscrow.collect, (_one(nodeId)));
        _works(stranger, address(escrow), call, "50: earnings can always be collected");
        vm.warp(terms.expiresAt + GRACE);
        call = abi.encodeCall(IEscrow.expire, (_one(terms)));
        _works(stranger, address(escrow), call, "50: a session can always be ended in time");
        assertEq(escrow.accountOf(buyer.addr), 60, "50: what was not spent is back");
    }

    function test_Attack51_NoCallTakesEther() public {
        address[4] memory all = [address(escrow), address(registry), address(court), address(escrow.RECEIPTS())];
        vm.deal(stranger, 1 ether);
        for (uint256 i = 0; i < all.length; ++i) {
            vm.prank(stranger);
            (bool ok,) = all[i].call{value: 1}("");
            assertFalse(ok, "51: no contract takes ether");
            vm.prank(stranger);
            (ok,) = all[i].call{value: 1}(abi.encodeWithSignature("multicall(bytes[])", new bytes[](0)));
            assertFalse(ok, "51: no call spends one value twice");
        }
        vm.deal(buyer.addr, 1 ether);
        vm.prank(buyer.addr);
        (bool took,) = address(escrow).call{value: 1}(abi.encodeCall(IEscrow.deposit, (1)));
        assertFalse(took, "51: a deposit takes tokens only");
    }

    function test_Attack52_WhoeverIsTalkedIntoACallSignsNothing() public {
        _deposit(100);
        Phisher phisher = new Phisher();
        bytes memory call = abi.encodeCall(IEscrow.withdraw, (100, stranger));
        vm.prank(buyer.addr, buyer.addr);
        phisher.claimPrize(address(escrow), call);
        assertEq(escrow.accountOf(buyer.addr), 100, "52: the caller counts, not who began");
        address[4] memory all = [address(escrow), address(registry), address(court), address(escrow.RECEIPTS())];
        for (uint256 i = 0; i < all.length; ++i) {
            assertFalse(_has(all[i].code, _ORIGIN), "52: no contract asks who began");
        }
    }

    function _otherKey() private returns (Actor memory) {
        return _actor("somebody else's key");
    }

    /// @dev Every function that only a contract may call, called by the operator.
    function _refusedToTreasury() private {
        string memory rule = "49: the operator is neither registry nor escrow nor court";
        bytes4 error = IEscrow.Escrow_NotRegistry.selector;
        bytes memory call = abi.encodeCall(IEscrow.setSettler, (nodeId, treasury));
        _refused(treasury, address(escrow), call, error, rule);
        call = abi.encodeCall(IEscrow.setNode, (nodeId, treasury, 1, true));
        _refused(treasury, address(escrow), call, error, rule);
        call = abi.encodeCall(IEscrow.setServing, (_one(nodeId), false));
        _refused(treasury, address(escrow), call, error, rule);
        error = IEscrow.Escrow_NotCourt.selector;
        call = abi.encodeCall(IEscrow.hold, (ROOT, key.addr, ROOT, 1, new bytes32[](0)));
        _refused(treasury, address(escrow), call, error, rule);
        call = abi.encodeCall(IEscrow.resolve, (ROOT, key.addr, treasury, 1, false));
        _refused(treasury, address(escrow), call, error, rule);
        error = INodeRegistry.NodeRegistry_NotEscrow.selector;
        _refused(treasury, address(registry), abi.encodeCall(INodeRegistry.lock, (provider, 1)), error, rule);
        _refused(treasury, address(registry), abi.encodeCall(INodeRegistry.unlock, (provider, 1)), error, rule);
        error = INodeRegistry.NodeRegistry_NotCourt.selector;
        _refused(treasury, address(registry), abi.encodeCall(INodeRegistry.slash, (provider, 1)), error, rule);
        _refused(treasury, address(registry), abi.encodeCall(INodeRegistry.release, (treasury, 1)), error, rule);
    }

    function _escrowWith(uint32 challenge) private returns (address) {
        bytes memory arguments = abi.encode(token, registry, court, treasury, MAX_SESSION, GRACE, challenge);
        return _create("Escrow.sol:Escrow", arguments);
    }

    function _gasOfSettling(bytes32 sessionId, uint32 throughSeq) private returns (uint256 gas) {
        SettleItem[] memory items = new SettleItem[](1);
        items[0] = _item(key, sessionId, throughSeq, 40);
        escrow.session(sessionId, key.addr);
        uint256 state = vm.snapshotState();
        vm.prank(settler);
        escrow.settle(items);
        gas = vm.lastCallGas().gasTotalUsed;
        vm.revertToState(state);
    }

    /// @dev Reads code as the machine does: what follows a PUSH is no instruction, what the compiler appends is none.
    function _has(bytes memory code, uint8 wanted) private pure returns (bool) {
        uint256 appended = 2 + (uint256(uint8(code[code.length - 2])) << 8) + uint8(code[code.length - 1]);
        for (uint256 i = 0; i < code.length - appended; ++i) {
            uint8 instruction = uint8(code[i]);
            if (instruction == wanted) return true;
            if (instruction >= 0x60 && instruction <= 0x7f) i += instruction - 0x5f;
        }
        return false;
    }
}

/// @title Attack 47: a receiver that refuses
contract RefuserAttack is Attack {
    function test_Attack47_AReceiverThatRevertsStopsNoCase() public {
        Refuser buyer_ = new Refuser(HookToken(address(token)), address(court));
        _mint(address(buyer_), FUNDS);
        vm.prank(address(buyer_));
        assertTrue(token.approve(address(escrow), FUNDS));
        vm.prank(address(buyer_));
        escrow.deposit(100e6);
        Open memory terms = _terms(100e6);
        terms.buyer = address(buyer_);
        vm.prank(address(buyer_));
        escrow.openOneSession(terms, "");
        SignedReceipt memory job = _job(terms, 1, 10e6);
        _claim(terms, job);
        bytes memory call = abi.encodeCall(ICourt.demand, (_claimedEvidence(terms, job)));
        bytes32 caseId = abi.decode(buyer_.act(address(court), call), (bytes32));
        buyer_.refuse();
        bytes memory advance = abi.encodeCall(ICourt.advance, (caseId));
        vm.warp(court.caseOf(caseId).phaseEnds);
        _works(stranger, address(court), advance, "47: a receiver that refuses money stops no case");
        assertEq(uint8(court.caseOf(caseId).state), uint8(CaseState.Upheld), "47: the case has ended");
        vm.warp(terms.expiresAt + GRACE);
        call = abi.encodeCall(IEscrow.expire, (_one(terms)));
        _works(stranger, address(escrow), call, "47: a receiver that refuses money keeps no session open");
    }

    function _newToken() internal override returns (IERC20) {
        return new HookToken();
    }
}
